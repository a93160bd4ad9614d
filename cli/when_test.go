package cli

import (
	"testing"
	"time"
)

func TestADelayAsPeopleSayIt(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90": 90 * time.Second, "90s": 90 * time.Second, "10m": 10 * time.Minute, "10 min": 10 * time.Minute, "1.5h": 90 * time.Minute, "2d": 48 * time.Hour,
		"2 days": 48 * time.Hour, "1 hr": time.Hour, "1h30m": 90 * time.Minute, "0.5d": 12 * time.Hour, " 5M ": 5 * time.Minute, "60d": 60 * 24 * time.Hour, "0": 0,
		"soon": -1, "": -1, "-5m": -1, "10y": -1, "m": -1, "1e9d": -1, "99999999999999999999d": -1, "2000d": -1, "50000h": -1, "1.5.5h": -1,
	} {
		got, err := parseIn(s)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %s, want %s (%v)", s, got, want, err)
		}
	}
}

func TestATimeAsPeopleSayIt(t *testing.T) {
	madrid, err := time.LoadLocation("Europe/Madrid")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 10, 24, 17, 0, 0, 0, madrid) // the clocks change in the night
	for s, want := range map[string]string{
		"17:01": "2026-10-24T17:01:00+02:00", "17:00": "2026-10-25T17:00:00+01:00", "9:05": "2026-10-25T09:05:00+01:00", "17:00:30": "2026-10-24T17:00:30+02:00",
		"2026-12-24": "2026-12-24T00:00:00+01:00", "2026-12-24 18:00": "2026-12-24T18:00:00+01:00", "2026-12-24T18:00:00Z": "2026-12-24T18:00:00Z",
		"2026-10-24T17:00": "", "2001-01-01": "", "yesterday": "", "25:00": "", "17": "", "": "",
	} {
		got, err := parseAt(s, now)
		text := got.Format(time.RFC3339)
		if err != nil {
			text = ""
		}
		if text != want {
			t.Errorf("%q: %s, want %s (%v)", s, text, want, err)
		}
	}
}

func TestATimeAtTheBeginningOfTheWords(t *testing.T) {
	for _, c := range []struct {
		words    []string
		in, at   string
		textSize int
	}{
		{[]string{"in 10m", "a", "b"}, "10m", "", 2},
		{[]string{"in", "10m", "a", "b"}, "10m", "", 2},
		{[]string{"At 17:00", "a"}, "", "17:00", 1},
		{[]string{"at", "17:00", "a"}, "", "17:00", 1},
		{[]string{"water", "the", "plants"}, "", "", 3},
		{[]string{"in"}, "", "", 1},
		{[]string{"inside", "x"}, "", "", 2},
	} {
		in, at, text := spoken(c.words)
		if in != c.in || at != c.at || len(text) != c.textSize {
			t.Errorf("%q: %q %q %q", c.words, in, at, text)
		}
	}
}
