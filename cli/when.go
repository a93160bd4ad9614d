package cli

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// When something is to happen, as people say it.

// farthest is the longest delay; the broker takes no longer one.
const farthest = 5 * 365 * 24 * time.Hour

var delay = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(|s|sec|secs|seconds?|m|min|mins|minutes?|h|hr|hrs|hours?|d|days?)$`)

// parseIn reads a delay: a number with s (also without), m, h or d, or a composition such as 1h30m.
func parseIn(s string) (time.Duration, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	bad := usagef("%s is no delay: say 90s, 10m, 1.5h, 1h30m or 2d", quoted(s))
	d, err := time.ParseDuration(s)
	if m := delay.FindStringSubmatch(s); m != nil {
		unit := time.Second
		switch {
		case strings.HasPrefix(m[2], "m"):
			unit = time.Minute
		case strings.HasPrefix(m[2], "h"):
			unit = time.Hour
		case strings.HasPrefix(m[2], "d"):
			unit = 24 * time.Hour
		}
		n, parseErr := strconv.ParseFloat(m[1], 64)
		if parseErr != nil || n > float64(farthest/unit) {
			return 0, usagef("%s is too far ahead", quoted(s))
		}
		d, err = time.Duration(n*float64(unit)), nil
	}
	switch {
	case err != nil, d < 0:
		return 0, bad
	case d > farthest:
		return 0, usagef("%s is too far ahead", quoted(s))
	}
	return d, nil
}

// parseAt reads a time of day, which is the next one, or a date with or without a time, in the zone of now. A date that has passed is an error.
func parseAt(s string, now time.Time) (time.Time, error) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{"15:04", "15:04:05"} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		on := func(day int) time.Time {
			return time.Date(now.Year(), now.Month(), now.Day()+day, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		}
		if at := on(0); at.After(now) {
			return at, nil
		}
		return on(1), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		t, err := time.ParseInLocation(layout, s, now.Location())
		if err != nil {
			continue
		}
		if !t.After(now) {
			return t, usagef("%s has passed", quoted(s))
		}
		return t, nil
	}
	return time.Time{}, usagef("%s is no time: say 17:00, 2026-12-24 or 2026-12-24T17:00", quoted(s))
}

// zoneName is the name of the zone this machine is in, to be said to another one; the offset of now when it has none that is known.
func (c *call) zoneName() string {
	name := strings.TrimPrefix(c.getenv("TZ"), ":")
	if name == "" {
		if link, err := os.Readlink("/etc/localtime"); err == nil {
			_, name, _ = strings.Cut(link, "zoneinfo/")
		}
	}
	if _, err := time.LoadLocation(name); name == "" || name == "Local" || err != nil {
		return c.clock.Now().Format("-07:00")
	}
	return name
}
