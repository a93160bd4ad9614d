package cli

import (
	"context"
	"strings"
	"unicode/utf8"

	"claudemesh/bus"
)

func traceVerb() verb {
	return verb{
		name: "trace", args: "ID", short: "the story of one message, with who says so",
		long: `ID is what claudemesh send printed, the id of a message in claudemesh inbox, the broker's id, or 8 or more of its first characters. The message may have
been sent or received here; a session is told of its own only. Each line is a step: when, what, by which way and by whom, and on whose word:

  this machine    it happened here
  signed by KEY   the recipient's machine says so, and nobody else can have written it
  answer by KEY   a message of that key refers to it
  broker          the broker says so, without proof

Steps: accepted, sent (the broker has it), delivered (the recipient's machine has it) or received (this one has), pushed (towards a session), surfaced (a
session was shown it), seen, answered; or failed, with the reason.`,
		examples: []string{"claudemesh trace 5d0c1f1e", "claudemesh trace SPLO6kO0vSc1 --json"},
		fails:    []string{"3  several messages begin so", "5  no such message was sent or received here"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh trace ID"); err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var t bus.Trace
			if err := n.daemon(ctx, bus.OpTrace, bus.TraceQuery{ID: c.args()[0], Mesh: c.cmd.String("mesh")}, &t); err != nil {
				return err
			}
			return c.ui.result(traceResult(t), func() error { return c.printTrace(t) })
		},
	}
}

type traceJSON struct {
	OK              bool            `json:"ok"`
	Mesh            string          `json:"mesh"`
	ID              string          `json:"id"`
	MessageID       string          `json:"messageId"`
	BrokerMessageID string          `json:"brokerMessageId,omitempty"`
	Direction       string          `json:"direction"` // sent, received or both
	From            string          `json:"from"`
	To              string          `json:"to"`
	State           string          `json:"state"`
	Error           string          `json:"error,omitempty"`
	Attempts        int             `json:"attempts,omitempty"`
	Steps           []bus.TraceStep `json:"steps"`
	Omitted         int             `json:"stepsOmitted,omitempty"`
	BrokerSilent    string          `json:"brokerSilent,omitempty"`
}

func traceResult(t bus.Trace) traceJSON {
	direction := "sent"
	switch {
	case t.Sent && t.Received:
		direction = "both"
	case t.Received:
		direction = "received"
	}
	return traceJSON{
		OK: true, Mesh: t.Mesh, ID: t.ID, MessageID: t.ClientMessageID, BrokerMessageID: t.BrokerMessageID, Direction: direction, From: t.From, To: t.To, State: t.State,
		Error: t.Error, Attempts: t.Attempts, Steps: t.Steps, Omitted: t.Omitted, BrokerSilent: t.BrokerSilent,
	}
}

func (c *call) printTrace(t bus.Trace) error {
	if err := c.ui.print("%s  %s → %s on %s", c.ui.paint(bold, t.State), cleanLine(t.From), cleanLine(t.To), t.Mesh); err != nil {
		return err
	}
	rows := make([][]string, 0, len(t.Steps))
	for _, s := range t.Steps {
		at, how := s.At, cleanLine(s.By)
		if at == "" {
			at = strings.Repeat("-", len("2006-01-02T15:04:05.000Z"))
		}
		if s.Via != "" {
			how = strings.TrimSpace(how + " via " + cleanLine(s.Via))
		}
		if how == "" && s.Key != "" {
			how = short(s.Key) + "…"
		}
		rows = append(rows, []string{at, s.State, how, source(s), cleanLine(s.Detail)})
	}
	for _, line := range align(rows) {
		if err := c.ui.print("  %s", line); err != nil {
			return err
		}
	}
	for _, row := range [][2]string{{"id", t.ClientMessageID}, {"broker id", t.BrokerMessageID}, {"error", t.Error}, {"broker says nothing", t.BrokerSilent}} {
		if row[1] == "" {
			continue
		}
		if err := c.ui.print("  %-9s %s", row[0], cleanLine(row[1])); err != nil {
			return err
		}
	}
	if t.Omitted > 0 {
		return c.ui.print("  and %s more", plural(t.Omitted, "step"))
	}
	return nil
}

// source says on whose word a step is known.
func source(s bus.TraceStep) string {
	key := short(s.Key) + "…"
	switch s.Source {
	case bus.SourceDaemon:
		return "this machine"
	case bus.SourceReceipt:
		return "signed by " + key
	case bus.SourceReply:
		return "answer by " + key
	}
	return "broker"
}

// align pads the columns of rows of equal length, two spaces apart, and leaves out what would be blank at the end of a line.
func align(rows [][]string) []string {
	widths := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}
