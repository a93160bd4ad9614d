package daemon

import (
	"testing"
	"time"

	"claudemesh/bridge"
	"claudemesh/wire"
)

func TestTheMessageModeIsWhatTheBrokerSaidLast(t *testing.T) {
	_, m := running(t)
	eventually(t, "the first mode", func() bool { return m.messageMode() == "push" })
	for _, tc := range []struct{ data, want string }{
		{`{"messageMode":"inbox"}`, "inbox"},
		{`{"roleTag":"lead"}`, "inbox"},
		{`{"messageMode":7}`, "inbox"},
		{`{"messageMode":"push"}`, "push"},
	} {
		m.system(bridge.Source{}, wire.Push{Subtype: wire.SubtypeSystem, Event: eventProfileUpdated, EventData: []byte(tc.data)})
		if got := m.messageMode(); got != tc.want {
			t.Errorf("%s: %q", tc.data, got)
		}
	}
}

func TestWhatIsSaidAgain(t *testing.T) {
	now := time.Now()
	no, yes, text, empty := false, true, "x", ""
	for name, tc := range map[string]struct {
		said spoken
		want []string
	}{
		"nothing":             {spoken{}, nil},
		"everything":          {spoken{Status: "dnd", Summary: &text, Visible: &no, Profile: wire.SetProfile{Title: &text}}, []string{"set_status", "set_summary", "set_visible", "set_profile"}},
		"what is the default": {spoken{Status: "idle", Visible: &yes}, nil},
		"working, just said":  {spoken{Status: "working", StatusAt: now.UnixMilli()}, []string{"set_status"}},
		"working, long ago":   {spoken{Status: "working", StatusAt: now.Add(-workingLife).UnixMilli()}, nil},
		"what was removed":    {spoken{Summary: &empty, Profile: wire.SetProfile{Bio: &empty}}, []string{"set_summary", "set_profile"}},
	} {
		t.Run(name, func(t *testing.T) {
			frames := tc.said.frames(now)
			if len(frames) != len(tc.want) {
				t.Fatalf("%+v", frames)
			}
			for i, f := range frames {
				if f.op != tc.want[i] {
					t.Errorf("%s, want %s", f.op, tc.want[i])
				}
			}
		})
	}
}
