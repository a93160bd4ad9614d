package cli

import (
	"context"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

// The nouns around time: remind, and schedule, which is the same under the reference's other name.

const remindForms = `"in 10m" TEXT…
"at 17:00" TEXT…
TEXT… --in 10m | --at 17:00 | --cron "0 9 * * 1-5"`

func remindVerb() verb {
	v := scheduleMessageVerb("remind")
	v.short = "send a message later, to yourself or to others"
	list, cancel := scheduleListVerb(), scheduleCancelVerb()
	list.hidden, cancel.hidden = true, true // they are schedule list and schedule cancel
	v.subs = []verb{list, cancel}
	return v
}

func scheduleVerb() verb {
	message := scheduleMessageVerb("msg")
	message.aliases = []string{"remind"}
	return verb{name: "schedule", short: "messages that are sent later", subs: []verb{message, scheduleListVerb(), scheduleCancelVerb()}}
}

func scheduleMessageVerb(name string) verb {
	return verb{
		name: name, args: remindForms, short: "schedule a message",
		long: `The broker keeps the message and sends it when it is due, whatever becomes of this session, this machine or the broker's own process.
Without --to it comes back to you: to the session this runs in, else to the user. To one peer it is sealed now, and the broker cannot read it; to
a group or everybody it cannot be sealed.

--in takes 90s, 10m, 1.5h, 2d. --at takes a time of day (the next one) or a date. --cron takes five fields: minute, hour, day of month, month, day
of week (0 is Sunday), and all five must match; times are those of --tz, by default of this machine's zone.

claudemesh schedule list shows what waits, schedule cancel takes it back.`,
		examples: []string{
			`claudemesh remind "in 10m" look at the build`,
			`claudemesh remind "stand-up" --cron "25 9 * * 1-5" --to @team`,
			`claudemesh remind "release" --at 17:00 --to bob --json`,
		},
		fails: []string{
			"3  no time, or one that is not understood; the text is empty or over 16 KiB; --to means several peers",
			"4  the broker cannot be reached", "5  no such peer or mesh",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "in", Usage: "after this `DELAY`: 90s, 10m, 1.5h, 2d"},
			&urfave.StringFlag{Name: "at", Usage: "at this `TIME`: 17:00, 2026-12-24, 2026-12-24T17:00"},
			&urfave.StringFlag{Name: "cron", Usage: "again and again: `EXPR` of five fields"},
			&urfave.StringFlag{Name: "to", Usage: "`TO`: self (default), a name, hex digits of a key, @group or '*'"},
			&urfave.StringFlag{Name: "tz", Usage: "the `ZONE` that --at and --cron are meant in (default: this machine's)"},
		},
		run: func(ctx context.Context, c *call) error { return c.remind(ctx) },
	}
}

// when is what a verb's arguments say about time: an instant, or a cron and its zone.
type when struct {
	at   time.Time
	cron string
	zone string
}

func (c *call) remind(ctx context.Context) error {
	w, words, err := c.when()
	if err != nil {
		return err
	}
	text := strings.Join(words, " ")
	switch {
	case text == "":
		return &usageError{message: "the message is empty", hint: "usage: claudemesh remind \"in 10m\" TEXT…"}
	case len(text) > wire.MaxScheduledBytes:
		return &tooLargeError{wire.MaxScheduledBytes}
	}
	if err := checkText(text); err != nil {
		return err
	}
	req := map[string]any{"to": c.cmd.String("to"), "message": text}
	if w.cron != "" {
		req["cron"], req["tz"], req["recurring"] = w.cron, w.zone, true
	} else {
		req["deliverAt"] = w.at.UnixMilli()
	}
	var out remindJSON
	slug, err := c.askBroker(ctx, wire.TypeSchedule, req, &out)
	if err != nil {
		return err
	}
	out.Mesh = slug
	return c.ui.result(out, func() error {
		to := "you"
		if named := c.cmd.String("to"); named != "" && named != "self" {
			to = cleanLine(named)
		}
		due := time.UnixMilli(out.DeliverAt)
		if l, err := time.LoadLocation(w.zone); w.zone != "" && err == nil {
			due = due.In(l)
		}
		s := "scheduled for " + to + " at " + due.Format("Mon 2 Jan 2006 15:04:05 MST")
		if out.Cron != "" {
			s += ", then again by " + cleanLine(out.Cron)
		}
		return c.ui.print("%s  [%s]", s, cleanLine(out.ScheduledID))
	})
}

// remindJSON is the result of setting a reminder; the first three keys are the reference's. DeliverAt is in Unix milliseconds.
type remindJSON struct {
	ScheduledID string `json:"scheduledId"`
	DeliverAt   int64  `json:"deliverAt"`
	Cron        string `json:"cron,omitempty"`
	To          string `json:"to"`
	Sealed      bool   `json:"sealed"`
	Mesh        string `json:"mesh"`
}

// when reads the time from the flags, or from the first words, and returns the words of the text.
func (c *call) when() (w when, words []string, err error) {
	words = c.args()
	in, at, cron := c.cmd.String("in"), c.cmd.String("at"), c.cmd.String("cron")
	given := 0
	for _, s := range []string{in, at, cron} {
		if s != "" {
			given++
		}
	}
	if given == 0 && len(words) > 0 {
		if in, at, words = spoken(words); in != "" || at != "" {
			given = 1
		}
	}
	if given != 1 {
		return w, nil, &usageError{message: "say when, once", hint: "one of: --in 10m, --at 17:00, --cron \"0 9 * * 1-5\""}
	}
	now := c.clock.Now()
	w.zone = c.cmd.String("tz")
	if w.zone != "" {
		l, err := time.LoadLocation(w.zone)
		if err != nil || w.zone == "Local" {
			return w, nil, &usageError{message: "no time zone is called " + quoted(w.zone), hint: "say it like Europe/Madrid"}
		}
		now = now.In(l)
	}
	switch {
	case in != "":
		d, err := parseIn(in)
		w.at = now.Add(d)
		return w, words, err
	case at != "":
		w.at, err = parseAt(at, now)
		return w, words, err
	}
	if w.cron = cron; w.zone == "" {
		w.zone = c.zoneName()
	}
	return w, words, nil
}

// spoken takes the time off a text that begins with "in …" or "at …", in one word of the command line or in two. The text is the rest.
func spoken(words []string) (in, at string, text []string) {
	first, rest, one := strings.Cut(strings.TrimSpace(words[0]), " ")
	text = words[1:]
	if !one {
		if len(words) < 2 {
			return "", "", words
		}
		rest, text = words[1], words[2:]
	}
	switch strings.ToLower(first) {
	case "in":
		return rest, "", text
	case "at":
		return "", rest, text
	}
	return "", "", words
}

func scheduleListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list what is scheduled and not sent",
		long: `Shows your messages that wait for their time. The text of one that was sealed by a session that has ended is not shown.

--json prints an array of {id, to, message, deliverAt, createdAt}; times are Unix milliseconds.`,
		examples: []string{"claudemesh schedule list --json"},
		fails:    []string{"4  the broker cannot be reached"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh schedule list"); err != nil {
				return err
			}
			var out wire.ScheduledList
			if _, err := c.askBroker(ctx, wire.TypeListScheduled, nil, &out); err != nil {
				return err
			}
			if out.Messages == nil {
				out.Messages = []wire.Scheduled{}
			}
			return c.ui.result(out.Messages, func() error {
				if len(out.Messages) == 0 {
					return c.ui.print("nothing is scheduled")
				}
				for _, s := range out.Messages {
					if err := c.printScheduled(s); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (c *call) printScheduled(s wire.Scheduled) error {
	text := cleanLine(s.Message)
	switch {
	case text == "" && s.Sealed:
		text = "(sealed by a session that has ended)"
	case s.Truncated:
		text += "…"
	}
	to := cleanLine(s.To)
	if len(to) == 64 {
		to = short(to) + "…"
	}
	line := time.UnixMilli(s.DeliverAt).Format("Mon 2 Jan 2006 15:04:05") + "  → " + to
	if s.Cron != "" {
		line += "  by " + cleanLine(s.Cron)
	}
	return c.ui.print("%s  %s\n    %s", line, c.ui.paint(dim, cleanLine(s.ID)), text)
}

func scheduleCancelVerb() verb {
	return verb{
		name: "cancel", aliases: []string{"rm"}, args: "ID", short: "take a scheduled message back",
		examples: []string{"claudemesh schedule cancel 63397df7-707b-400e-b6e8-bd0332e66ea3"},
		fails:    []string{"4  the broker cannot be reached", "5  nothing of that id waits: it was never there, or has been sent", "7  it is another member's"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh schedule cancel ID"); err != nil {
				return err
			}
			id := c.args()[0]
			var out wire.CancelScheduledAck
			if _, err := c.askBroker(ctx, wire.TypeCancelScheduled, map[string]any{"scheduledId": id}, &out); err != nil {
				return err
			}
			if !out.OK {
				return &bus.APIError{Code: 404, Reason: "schedule_not_found", Detail: "nothing is scheduled under " + quoted(id) + ": it was never there, or it has been sent"}
			}
			return c.ui.result(map[string]any{"id": id, "cancelled": true}, func() error { return c.ui.print("cancelled %s", cleanLine(id)) })
		},
	}
}
