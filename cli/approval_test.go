package cli

import (
	"testing"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/policy"
)

func TestEveryCommandIsClassified(t *testing.T) {
	everyVerb(func(words string, _ *urfave.Command, _ verb) {
		op, known := operationOf(words, func(string) bool { return false })
		switch {
		case !known:
			t.Errorf("%q has no row in operations (cli/approvaltable.go): say whether it reads, writes, is for admins, or is free", words)
		case op.class != free && (op.resource == "" || op.verb == ""), op.class < free || op.class > admin:
			t.Errorf("%q: its row is not complete: %+v", words, op)
		}
	})
}

func TestModesAndPolicies(t *testing.T) {
	rules := func(text string) *policy.Policy {
		p, err := policy.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	denies, asks, allows := rules("default: deny"), rules("default: prompt"), rules("rules: [{resource: '*', verb: '*', decision: allow}]")
	for _, tc := range []struct {
		name    string
		s       standing
		class   class
		want    policy.Decision
		planned bool
	}{
		{"read-only lets look", standing{mode: modeReadOnly}, read, policy.Allow, false},
		{"read-only refuses to write", standing{mode: modeReadOnly}, write, policy.Deny, false},
		{"read-only refuses an admin", standing{mode: modeReadOnly}, admin, policy.Deny, false},
		{"plan lets look", standing{mode: modePlan}, read, policy.Allow, false},
		{"plan does nothing", standing{mode: modePlan}, write, policy.Allow, true},
		{"plan says that it would ask", standing{mode: modePlan, policy: asks}, write, policy.Prompt, true},
		{"plan says what would be refused", standing{mode: modePlan, policy: denies}, write, policy.Deny, false},
		{"write lets write", standing{mode: modeWrite}, write, policy.Allow, false},
		{"write asks an admin", standing{mode: modeWrite}, admin, policy.Prompt, false},
		{"write does not ask about what a rule allows", standing{mode: modeWrite, policy: allows}, admin, policy.Allow, false},
		{"yolo asks nothing", standing{mode: modeYolo, policy: asks}, admin, policy.Allow, false},
		{"yolo does not override a deny", standing{mode: modeYolo, policy: denies}, read, policy.Deny, false},
		{"no mode leaves it to the policy", standing{policy: asks}, read, policy.Prompt, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if v := tc.s.judge(operation{resource: "x", verb: "y", class: tc.class}, policy.Question{Resource: "x", Verb: "y"}); v.decision != tc.want || v.planned != tc.planned {
				t.Errorf("%+v", v)
			}
		})
	}
}
