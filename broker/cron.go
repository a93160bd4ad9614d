package broker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the rules of a zone must not depend on what the broker's machine has installed
)

// cron is a parsed expression: one set of values a field, as bits. A minute is meant when all five fields hold, the day of the month AND the day of the
// week: that is how the reference reads it, and not how crontab(5) does.
type cron struct{ minute, hour, day, month, weekday uint64 }

var (
	errBadCron   = errors.New("not a cron expression")
	errNeverDue  = errors.New("no such time within 366 days")
	errBadZone   = errors.New("not a time zone")
	errNotInCron = fmt.Errorf("%w: a field is out of its range", errBadCron)
)

// cronHorizon is how far ahead a time is looked for.
const cronHorizon = 366 * 24 * time.Hour

// parseCron reads exactly five fields: minute, hour, day of month, month, day of week (0 = Sunday). A field is a list of *, N or A-B, each with an optional
// /STEP; N/STEP goes on to the end of the range. There are no names, and Sunday is not 7.
func parseCron(s string) (c cron, err error) {
	fields := strings.Fields(s)
	if len(fields) != 5 {
		return c, fmt.Errorf("%w: it has %d fields and not 5", errBadCron, len(fields))
	}
	for i, f := range []struct {
		set      *uint64
		from, to int
	}{{&c.minute, 0, 59}, {&c.hour, 0, 23}, {&c.day, 1, 31}, {&c.month, 1, 12}, {&c.weekday, 0, 6}} {
		for part := range strings.SplitSeq(fields[i], ",") {
			bits, err := cronPart(part, f.from, f.to)
			if err != nil {
				return c, err
			}
			*f.set |= bits
		}
	}
	return c, nil
}

func cronPart(part string, from, to int) (bits uint64, err error) {
	span, stepText, stepped := strings.Cut(part, "/")
	step := 1
	if stepped {
		if step, err = cronNumber(stepText, 1, 59); err != nil {
			return 0, err
		}
	}
	first, last := from, to
	if span != "*" {
		a, b, isRange := strings.Cut(span, "-")
		if first, err = cronNumber(a, from, to); err != nil {
			return 0, err
		}
		switch {
		case isRange:
			if last, err = cronNumber(b, first, to); err != nil {
				return 0, err
			}
		case !stepped:
			last = first
		}
	}
	for n := first; n <= last; n += step {
		bits |= 1 << n
	}
	return bits, nil
}

func cronNumber(s string, from, to int) (int, error) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%w: %.20q is no number", errBadCron, s)
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < from || n > to {
		return 0, errNotInCron
	}
	return n, nil
}

// next is the first minute after t that is meant, in t's zone. A local time that a change of the clocks leaves out does not occur, one that it repeats occurs
// twice. errNeverDue when there is none within cronHorizon.
func (c cron) next(after time.Time) (time.Time, error) {
	limit := after.Add(cronHorizon)
	t := after.Truncate(time.Minute).Add(time.Minute)
	has := func(set uint64, n int) bool { return set&(1<<n) != 0 }
	for t.Before(limit) {
		var skip time.Time
		switch {
		case !has(c.month, int(t.Month())):
			skip = time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, t.Location())
		case !has(c.day, t.Day()) || !has(c.weekday, int(t.Weekday())):
			skip = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, t.Location())
		case !has(c.hour, t.Hour()):
			skip = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		case !has(c.minute, t.Minute()):
			skip = t.Add(time.Minute)
		default:
			return t, nil
		}
		// A midnight that the clocks leave out is read as an earlier time.
		if !skip.After(t) {
			skip = t.Add(time.Minute)
		}
		t = skip
	}
	return time.Time{}, errNeverDue
}

// zone is the location of an IANA name or of an offset such as "+02:00"; empty is the broker's own.
func zone(name string) (*time.Location, error) {
	switch {
	case name == "":
		return time.Local, nil
	case name[0] == '+' || name[0] == '-':
		t, err := time.Parse("-07:00", name)
		if err != nil {
			return nil, fmt.Errorf("%w: %.64q", errBadZone, name)
		}
		_, offset := t.Zone()
		return time.FixedZone(name, offset), nil
	case name == "Local": // it would mean another one here than where it was said
		return nil, fmt.Errorf("%w: %q", errBadZone, name)
	}
	l, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %.64q", errBadZone, name)
	}
	return l, nil
}
