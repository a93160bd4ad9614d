//go:build unix

package cli

import (
	"context"
	"strings"
	"testing"

	"claudemesh/bus"
)

func TestARefusalOfTheGuardSaysWhatToDo(t *testing.T) {
	for reason, hint := range map[string]string{"pair_limit": "into one message", "reply_loop": "ask your user"} {
		t.Run(reason, func(t *testing.T) {
			s := newScripted(t, map[string]bus.Handler{"send": func(context.Context, *bus.Call) (any, error) {
				return nil, &bus.APIError{Code: 429, Reason: reason, Detail: "too much", Data: map[string]any{"retry_after_ms": 1500}}
			}})
			code, out, errs := s.run("send", "bob", "hi", "--json")
			if code != exitConflict || !strings.Contains(out, `"error": "`+reason+`"`) || !strings.Contains(out, `"retry_after_ms": 1500`) || !strings.Contains(out, hint) {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
		})
	}
}
