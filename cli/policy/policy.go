// Package policy reads the file that says which commands run, which ask first and which are refused, and decides by it.
//
// The format is the reference's: YAML, or JSON, with "default" and "rules", of which the first that fits decides. Unlike there, a file that is not understood
// is an error, whole and at once: a rule with a typing error must not silently stop protecting. A rule's peers are looked at, too.
//
// It protects from mistakes, of a person or a model, and not from somebody who wants to get around it: whoever can run the program can run another.
package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Decision is what becomes of a command.
type Decision string

// The decisions there are.
const (
	Allow  Decision = "allow"
	Prompt Decision = "prompt"
	Deny   Decision = "deny"
)

func (d Decision) valid() bool { return d == Allow || d == Prompt || d == Deny }

// ErrInvalid is wrapped for a file that is not understood.
var ErrInvalid = errors.New("policy not understood")

// MaxSize bounds a file in bytes.
const MaxSize = 64 << 10

const maxRules = 1000

// Policy is a file.
type Policy struct {
	Default Decision `yaml:"default" json:"default"`
	Rules   []Rule   `yaml:"rules" json:"rules"`
}

// Rule fits a command by resource and verb ("*" for any), and by mesh and peers where it names them.
type Rule struct {
	Resource string   `yaml:"resource" json:"resource"`
	Verb     string   `yaml:"verb" json:"verb"`
	Mesh     string   `yaml:"mesh,omitempty" json:"mesh,omitempty"`
	Peers    []string `yaml:"peers,omitempty,flow" json:"peers,omitempty"`
	Decision Decision `yaml:"decision" json:"decision"`
	Reason   string   `yaml:"reason,omitempty" json:"reason,omitempty"`
}

// Parse reads a file. Errors wrap ErrInvalid and say what is wrong with which rule.
func Parse(text []byte) (*Policy, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxSize)
	}
	p := &Policy{Default: Allow}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(p); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := dec.Decode(new(Policy)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: it holds more than one document", ErrInvalid)
	}
	if !p.Default.valid() {
		return nil, fmt.Errorf("%w: default is allow, prompt or deny, not %.40q", ErrInvalid, p.Default)
	}
	if len(p.Rules) > maxRules {
		return nil, fmt.Errorf("%w: more than %d rules", ErrInvalid, maxRules)
	}
	for i, r := range p.Rules {
		switch {
		case r.Resource == "" || r.Verb == "":
			return nil, fmt.Errorf("%w: rule %d lacks resource or verb", ErrInvalid, i+1)
		case !r.Decision.valid():
			return nil, fmt.Errorf("%w: rule %d: decision is allow, prompt or deny, not %.40q", ErrInvalid, i+1, r.Decision)
		}
	}
	return p, nil
}

// Question is a command. Mesh and Peer are "" where the command is about none, or it is not known which: rules that protect fit then, rules that allow do not.
type Question struct {
	Resource, Verb string
	Mesh           string
	Peer           string // as typed
}

// Decide finds the first rule that fits; nil stands for the default.
func (p *Policy) Decide(q Question) (Decision, *Rule) {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.fits(q) {
			return r.Decision, r
		}
	}
	return p.Default, nil
}

func (r *Rule) fits(q Question) bool {
	unknown := r.Decision != Allow
	switch {
	case r.Resource != "*" && r.Resource != q.Resource, r.Verb != "*" && r.Verb != q.Verb:
		return false
	case r.Mesh != "" && r.Mesh != "*" && q.Mesh != r.Mesh && !(q.Mesh == "" && unknown):
		return false
	case len(r.Peers) > 0 && !slices.Contains(r.Peers, "*") && !slices.Contains(r.Peers, q.Peer) && !(q.Peer == "" && unknown):
		return false
	}
	return true
}

// Default is the file to begin with: everything is allowed, and what takes something from others, or cannot be taken back, asks.
const Default = `# Which commands run, which ask first, which are refused. The first rule that fits decides.
# decision: allow, prompt or deny. resource and verb: * for any. mesh and peers narrow a rule.
# claudemesh policy check VERB says what would become of a command.
default: allow
rules:
  - {resource: peer, verb: kick, decision: prompt}
  - {resource: peer, verb: ban, decision: prompt}
  - {resource: peer, verb: disconnect, decision: prompt}
  - {resource: file, verb: delete, decision: prompt}
  - {resource: vector, verb: delete, decision: prompt}
  - {resource: vault, verb: delete, decision: prompt}
  - {resource: memory, verb: forget, decision: prompt}
  - {resource: skill, verb: remove, decision: prompt}
  - {resource: webhook, verb: delete, decision: prompt}
  - {resource: watch, verb: remove, decision: prompt}
  - {resource: sql, verb: execute, decision: prompt}
  - {resource: graph, verb: execute, decision: prompt}
  - {resource: mesh, verb: delete, decision: prompt}
  - {resource: apikey, verb: create, decision: prompt}
  - {resource: apikey, verb: revoke, decision: prompt}
`
