package daemon

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"claudemesh/bridge"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestWhatBecomesOfAnAttempt(t *testing.T) {
	refusedBy := func(code, text string) wire.Ack { return wire.Ack{Type: wire.TypeAck, Error: text, Code: code} }
	names := map[verdict]string{sent: "sent", refused: "refused", again: "again", soon: "soon", limited: "limited", later: "later"}
	for name, c := range map[string]struct {
		ack    wire.Ack
		err    error
		want   verdict
		silent bool // no reason is given
	}{
		"taken":       {ack: wire.Ack{Queued: true, MessageID: "m"}, want: sent, silent: true},
		"taken twice": {ack: wire.Ack{Queued: true, MessageID: "m", Duplicate: true}, want: sent, silent: true},

		// A reference broker's texts, wire-protocol 1.5 and 3.3.
		"its limiter":       {ack: refusedBy("", "rate_limit: max 60 msg/min (burst 10) — slow down"), want: limited},
		"its size check":    {ack: refusedBy("", "payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536"), want: refused},
		"its grants":        {ack: refusedBy("", "blocked by recipient grants (sender lacks dm capability)"), want: refused},
		"its absent peer":   {ack: refusedBy("", "no connected peer for target (not online, or targetSpec is your own key without another session)"), want: later},
		"a general failure": {ack: refusedBy("", "internal error"), want: later},
		"no reason at all":  {ack: wire.Ack{Type: wire.TypeAck}, want: later},
		// A text that only mentions what the reference's own daemon searched for.
		"a name in a text": {ack: refusedBy("", "temporarily unavailable: author index invalid, schema not_found"), want: later},

		// Ours, by code.
		"too large":      {ack: refusedBy(wire.AckPayloadTooLarge, "x"), want: refused},
		"id reused":      {ack: refusedBy(wire.AckIDReused, "x"), want: refused},
		"invalid":        {ack: refusedBy(wire.AckInvalid, "x"), want: refused},
		"nobody there":   {ack: refusedBy(wire.AckNoPeer, "x"), want: later},
		"store is down":  {ack: refusedBy(wire.AckUnavailable, "unavailable: x"), want: later},
		"a code of 2031": {ack: refusedBy("moon_phase", "x"), want: later},

		"not open":            {err: bridge.ErrNotOpen, want: again},
		"lost before the ack": {err: fmt.Errorf("send: %w", bridge.ErrLost), want: again},
		"stopped":             {err: context.Canceled, want: again},
		"no ack in time":      {err: context.DeadlineExceeded, want: later},
		"session link opens":  {err: errLinkClosed, want: soon},
		"name unknown yet":    {err: fmt.Errorf("x: %w", &mesh.ErrNotFound{Target: mesh.Target{Kind: mesh.TargetName, Typed: "dora"}}), want: later},
		"name ambiguous":      {err: &mesh.ErrAmbiguous{}, want: refused},
		"to itself":           {err: mesh.ErrSelf, want: refused},
		"weak key":            {err: errUnsealable, want: refused},
		"bad target":          {err: mesh.ErrBadTarget, want: refused},
		"anything else":       {err: errors.New("disk on fire"), want: later},
		"an error frame":      {err: &bridge.BrokerError{Code: "internal", Message: "x"}, want: later},
	} {
		t.Run(name, func(t *testing.T) {
			got, reason := judge(c.ack, c.err)
			if got != c.want || (reason == "") != c.silent {
				t.Errorf("%s with reason %q, want %s", names[got], reason, names[c.want])
			}
		})
	}
}
