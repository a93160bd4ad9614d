package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestTheDefaultFile(t *testing.T) {
	p, err := Parse([]byte(Default))
	if err != nil || p.Default != Allow || len(p.Rules) != 15 {
		t.Fatalf("%+v %v", p, err)
	}
	if d, r := p.Decide(Question{Resource: "peer", Verb: "kick"}); d != Prompt || r == nil {
		t.Error(d, r)
	}
	if d, r := p.Decide(Question{Resource: "message", Verb: "send"}); d != Allow || r != nil {
		t.Error(d, r)
	}
}

func TestDecisions(t *testing.T) {
	p, err := Parse([]byte(`
default: prompt   # "#" begins a comment, not inside "quotes"
rules:
  - {resource: message, verb: send, mesh: work, peers: [boss], decision: deny, reason: "not to #1"}
  - {resource: message, verb: send, peers: [bob], decision: allow}
  - {resource: state, verb: "*", mesh: work, decision: allow}
  - {resource: "*", verb: delete, decision: deny}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		q    Question
		want Decision
	}{
		{Question{"message", "send", "work", "boss"}, Deny},
		{Question{"message", "send", "home", "boss"}, Prompt},
		{Question{"message", "send", "", "boss"}, Deny}, // which mesh is not known: what protects fits
		{Question{"message", "send", "work", "bob"}, Allow},
		{Question{"message", "send", "home", "carol"}, Prompt},
		{Question{"state", "set", "work", ""}, Allow},
		{Question{"state", "set", "", ""}, Prompt}, // and what allows does not
		{Question{"state", "set", "home", ""}, Prompt},
		{Question{"mesh", "delete", "home", ""}, Deny},
	} {
		if got, _ := p.Decide(tc.q); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.q, got, tc.want)
		}
	}
}

func TestAFileThatIsNotUnderstoodIsAnError(t *testing.T) {
	for _, text := range []string{
		"default: maybe", "rules: [{resource: peer, decision: deny}]", "rules: [{resource: peer, verb: kick, decision: nope}]", "rules: [{resource: peer, verb: kick}]",
		"rules: [{resource: peer, verb: kick, decision: deny, mehs: x}]", "ruels: []", "default: allow\n---\ndefault: deny", "- x", "{", "default: [", strings.Repeat("#", MaxSize+1),
	} {
		if p, err := Parse([]byte(text)); !errors.Is(err, ErrInvalid) || p != nil {
			t.Errorf("%.60q: %+v %v", text, p, err)
		}
	}
	for _, text := range []string{"", "# nothing", `{"default":"deny","rules":[{"resource":"peer","verb":"kick","decision":"allow"}]}`} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Default))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if d, _ := p.Decide(Question{Resource: "x", Verb: "y"}); !d.valid() {
			t.Errorf("%q", d)
		}
	})
}
