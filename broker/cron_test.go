package broker

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func at(t *testing.T, text, zoneName string) time.Time {
	t.Helper()
	l, err := zone(zoneName)
	if err != nil {
		t.Fatal(err)
	}
	out, err := time.ParseInLocation("2006-01-02 15:04:05", text, l)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheNextTimeOfACron(t *testing.T) {
	for _, c := range []struct{ name, expr, zone, after, want string }{
		{"every minute is the next minute", "* * * * *", "UTC", "2026-11-22 10:00:00", "2026-11-22 10:01:00"},
		{"and not the one that has begun", "* * * * *", "UTC", "2026-11-22 10:00:30", "2026-11-22 10:01:00"},
		{"steps", "*/5 * * * *", "UTC", "2026-11-22 10:01:00", "2026-11-22 10:05:00"},
		{"a step from a number goes on to the end", "50/5 * * * *", "UTC", "2026-11-22 10:52:00", "2026-11-22 10:55:00"},
		{"a range with a step", "0-10/5 9 * * *", "UTC", "2026-11-22 09:05:00", "2026-11-22 09:10:00"},
		{"lists", "0,30 9,17 * * *", "UTC", "2026-11-22 09:30:00", "2026-11-22 17:00:00"},
		{"over the end of a year", "0 0 1 1 *", "UTC", "2026-11-22 00:00:00", "2027-01-01 00:00:00"},
		{"working days", "0 9 * * 1-5", "UTC", "2026-11-20 09:00:00", "2026-11-23 09:00:00"},
		{"Sunday is 0", "0 9 * * 0", "UTC", "2026-11-20 09:00:00", "2026-11-22 09:00:00"},
		{"the 13th AND a Friday", "0 0 13 * 5", "UTC", "2026-11-22 00:00:00", "2027-08-13 00:00:00"},
		{"in a zone", "0 9 * * *", "Europe/Madrid", "2026-11-22 08:59:00", "2026-11-22 09:00:00"},
		{"an hour that the clocks leave out is no time", "30 2 * * *", "Europe/Madrid", "2026-03-28 03:00:00", "2026-03-30 02:30:00"},
		{"a midnight that the clocks leave out neither", "0 0 * * *", "Africa/Cairo", "2026-04-23 12:00:00", "2026-04-25 00:00:00"},
		{"in a fixed offset", "0 9 * * *", "-03:30", "2026-11-22 09:00:00", "2026-11-23 09:00:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, err := parseCron(c.expr)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parsed.next(at(t, c.after, c.zone))
			if err != nil || !got.Equal(at(t, c.want, c.zone)) {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
	t.Run("a time that never is", func(t *testing.T) {
		c, err := parseCron("0 0 31 2 *")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.next(at(t, "2026-01-01 00:00:00", "UTC")); !errors.Is(err, errNeverDue) {
			t.Error(err)
		}
	})
	t.Run("an hour that the clocks repeat is twice", func(t *testing.T) {
		c, _ := parseCron("30 2 * * *")
		first, err := c.next(at(t, "2026-10-25 01:00:00", "Europe/Madrid"))
		second, err2 := c.next(first)
		if err != nil || err2 != nil || second.Sub(first) != time.Hour {
			t.Errorf("%s, %s: %v %v", first, second, err, err2)
		}
	})
}

func TestWhatIsNoCron(t *testing.T) {
	for _, s := range []string{
		"", "nope", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "* * * * SUN", "*/0 * * * *", "5-1 * * * *",
		"1- * * * *", "-1 * * * *", "1,,2 * * * *", "1/ * * * *", "+1 * * * *", "1.5 * * * *", strings.Repeat("9", 200) + " * * * *", "@daily",
	} {
		if _, err := parseCron(s); !errors.Is(err, errBadCron) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"Mars/Olympus", "Local", "+25:00", "../etc/passwd", "+2"} {
		if _, err := zone(s); !errors.Is(err, errBadZone) {
			t.Errorf("zone %q: %v", s, err)
		}
	}
}

// FuzzCron: whatever parses has a next time that fits it, or none, and is found without end.
func FuzzCron(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-3 13 * 5", "0 0 29 2 *", "59 23 31 12 6", "1,2,3/7 0 1 1 0"} {
		f.Add(s, int64(1795376012005))
	}
	f.Fuzz(func(t *testing.T, s string, ms int64) {
		c, err := parseCron(s)
		if err != nil {
			return
		}
		after := time.UnixMilli(ms % (1 << 44)).UTC()
		next, err := c.next(after)
		if err != nil {
			return
		}
		if !next.After(after) || c.minute&(1<<next.Minute()) == 0 || c.hour&(1<<next.Hour()) == 0 || c.day&(1<<next.Day()) == 0 {
			t.Errorf("%q after %s: %s", s, after, next)
		}
	})
}
