package cli

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/policy"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// What a command may do is decided here, once, before it runs: by the approval mode, and by the policy file if there is one. Without either nothing is asked
// and nothing is written down.

const (
	approvalEnv = "CLAUDEMESH_APPROVAL_MODE"
	policyEnv   = "CLAUDEMESH_POLICY"

	policyName   = "policy.yaml"
	auditName    = "audit.log"
	auditLimit   = 1 << 20 // bytes; then the log becomes audit.log.1, in place of the one before
	auditVersion = 1
)

// Approval modes.
const (
	modePlan     = "plan"      // say what would be done, do what only looks
	modeReadOnly = "read-only" // do what only looks, refuse the rest
	modeWrite    = "write"     // do it, but ask before what is for admins
	modeYolo     = "yolo"      // do it, and take every question for answered with yes
)

func approvalFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "approval-mode", Usage: "`MODE` plan (say what would be done), read-only, write (ask before what an admin would do) or yolo (ask nothing)"},
		&urfave.StringFlag{Name: "policy", Usage: "the policy `FILE` (default ~/.claudemesh/policy.yaml, if it is there)"},
	}
}

// standing is the mode and the policy that are in force.
type standing struct {
	mode   string // "" when none was named
	path   string // of the policy; "" when there is none
	policy *policy.Policy
}

// userDir is where the policy lies. It does not follow CLAUDEMESH_CONFIG_DIR: what is run with another configuration is under the same policy.
func (c *call) userDir() (string, error) {
	return mesh.ConfigDir(func(name string) string {
		if name == "CLAUDEMESH_CONFIG_DIR" {
			return ""
		}
		return c.getenv(name)
	})
}

func (c *call) standing() (s standing, err error) {
	s.mode = cmp.Or(c.cmd.String("approval-mode"), c.getenv(approvalEnv))
	switch s.mode {
	case "", modePlan, modeReadOnly, modeWrite, modeYolo:
	default:
		return s, usagef("the approval mode is plan, read-only, write or yolo, not %s", quoted(s.mode))
	}
	s.path = cmp.Or(c.cmd.String("policy"), c.getenv(policyEnv))
	named := s.path != ""
	if !named {
		dir, err := c.userDir()
		if errors.Is(err, mesh.ErrNoHome) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		s.path = filepath.Join(dir, policyName)
	}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		s.path = ""
		return s, nil
	}
	if err != nil {
		return s, &failure{Code: "policy_unreadable", Message: fmt.Sprintf("the policy cannot be read: %v", err), Hint: "nothing was done; without a policy that can be read nothing is allowed", Exit: exitIO}
	}
	if s.policy, err = policy.Parse(text); err != nil {
		return s, &failure{Code: "policy_invalid", Message: cleanLine(fmt.Sprintf("%s: %v", s.path, err)), Hint: "nothing was done; claudemesh policy show tells when it is right", Exit: exitUsage}
	}
	return s, nil
}

// verdict is what becomes of a command, and why.
type verdict struct {
	decision policy.Decision
	planned  bool // it would be done
	reason   string
}

// judge applies mode and policy. A file that says deny is obeyed in every mode.
func (s standing) judge(op operation, q policy.Question) verdict {
	v := verdict{decision: policy.Allow}
	var rule *policy.Rule
	if s.policy != nil {
		v.decision, rule = s.policy.Decide(q)
		if rule != nil {
			v.reason = rule.Reason
		}
	}
	changes := op.class != read
	switch {
	case v.decision == policy.Deny:
		v.reason = cmp.Or(v.reason, "the policy says so")
	case changes && s.mode == modeReadOnly:
		v.decision, v.reason = policy.Deny, "the approval mode is read-only"
	case changes && s.mode == modePlan:
		v.planned = true
	case s.mode == modeYolo:
		v.decision = policy.Allow
	case op.class == admin && s.mode == modeWrite && rule == nil:
		v.decision, v.reason = policy.Prompt, "the approval mode is write, and this is for admins"
	}
	return v
}

// permitted decides about the command. done means that there is nothing left to do: it was only planned.
func (c *call) permitted() (done bool, err error) {
	words := commandWords(c.cmd)
	op, known := operationOf(words, c.cmd.IsSet)
	if !known {
		op = operation{resource: "unknown", verb: strings.ReplaceAll(words, " ", "-"), class: admin}
	}
	if op.class == free {
		return false, c.inherit()
	}
	s, err := c.standing()
	if err != nil || s.mode == "" && s.policy == nil {
		return false, err
	}
	if err := c.inherit(); err != nil {
		return false, err
	}
	q := policy.Question{Resource: op.resource, Verb: op.verb, Mesh: c.meshForPolicy()}
	if op.peer && len(c.args()) > 0 {
		q.Peer = c.args()[0]
	}
	v := s.judge(op, q)
	if err := c.audit(op, q, s, v, string(v.decision)); err != nil {
		return false, err
	}
	switch {
	case v.decision == policy.Deny:
		return false, c.blocked(op, s, v)
	case v.planned:
		return true, c.plan(op, q, v)
	case v.decision == policy.Prompt && !c.cmd.Bool("yes"):
		return false, c.askApproval(op, q, s, v)
	}
	return false, nil
}

// inherit hands a mode that was named on the command line to the programs that this one starts.
func (c *call) inherit() error {
	for name, flag := range map[string]string{approvalEnv: "approval-mode", policyEnv: "policy"} {
		value := c.cmd.String(flag)
		if value == "" {
			continue
		}
		if flag == "policy" {
			path, err := filepath.Abs(value)
			if err != nil {
				return fmt.Errorf("find policy: %w", err)
			}
			value = path
		}
		environ := c.environ
		c.environ = func() []string {
			var out []string
			for _, kv := range environ() {
				if !strings.HasPrefix(kv, name+"=") {
					out = append(out, kv)
				}
			}
			return append(out, name+"="+value)
		}
	}
	return nil
}

// meshForPolicy is the mesh that a command is about, as far as it is clear.
func (c *call) meshForPolicy() string {
	slug := cmp.Or(c.cmd.String("mesh"), c.getenv(feed.EnvMesh))
	if slug == "" {
		if joined, err := c.joined(); err == nil && len(joined) == 1 {
			slug = joined[0]
		}
	}
	return slug
}

func (c *call) blocked(op operation, s standing, v verdict) error {
	hint := "the policy is " + s.path + "; claudemesh policy show explains it"
	if s.path == "" {
		hint = "the mode comes from --approval-mode or " + approvalEnv
	}
	return &failure{
		Code: "blocked_by_policy", Message: fmt.Sprintf("blocked by policy: %s %s — %s", op.resource, op.verb, cleanLine(v.reason)), Hint: hint, Exit: exitPermission,
		Data: map[string]any{"resource": op.resource, "verb": op.verb, "reason": v.reason},
	}
}

// plan says what would be done. The arguments are not checked any further: that is the command's own work.
func (c *call) plan(op operation, q policy.Question, v verdict) error {
	asks := v.decision == policy.Prompt
	return c.ui.result(map[string]any{
		"ok": true, "planned": true, "done": false, "resource": op.resource, "verb": op.verb, "class": op.class.String(), "mesh": q.Mesh,
		"arguments": len(c.args()), "would_ask": asks,
	}, func() error {
		text := fmt.Sprintf("would do: %s %s", op.resource, op.verb)
		if q.Peer != "" {
			text += " (" + cleanLine(q.Peer) + ")"
		}
		if q.Mesh != "" {
			text += " on mesh " + cleanLine(q.Mesh)
		}
		if asks {
			text += ", after asking"
		}
		return c.ui.print("%s; the mode is plan, nothing was done", text)
	})
}

func (c *call) askApproval(op operation, q policy.Question, s standing, v verdict) error {
	refused := &failure{
		Code: "not_approved", Message: fmt.Sprintf("%s %s needs to be approved; nothing was done", op.resource, op.verb), Hint: "say --yes (-y) to approve it", Exit: exitPermission,
		Data: map[string]any{"resource": op.resource, "verb": op.verb},
	}
	if c.ui.json || !terminal(c.stdin) || !terminal(c.stderr) {
		return errors.Join(refused, c.audit(op, q, s, v, "nobody-to-ask"))
	}
	why := ""
	if v.reason != "" {
		why = " (" + cleanLine(v.reason) + ")"
	}
	fmt.Fprintf(c.stderr, "%s %s%s? [y/N] ", op.resource, op.verb, why)
	line, _ := bufio.NewReader(c.stdin).ReadString('\n') // the end of the input is a no
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return c.audit(op, q, s, v, "approved-at-prompt")
	}
	refused.Code, refused.Message, refused.Hint = "cancelled", "cancelled", ""
	return errors.Join(refused, c.audit(op, q, s, v, "cancelled-at-prompt"))
}

// auditLine is one evaluation. No argument but the peer is in it: it may be a secret.
type auditLine struct {
	V        int    `json:"v"`
	TS       string `json:"ts"`
	Resource string `json:"resource"`
	Verb     string `json:"verb"`
	Mesh     string `json:"mesh,omitempty"`
	Mode     string `json:"mode"`
	IsWrite  bool   `json:"isWrite"`
	Yes      bool   `json:"yes"`
	Decision string `json:"decision"`
	Reason   string `json:"reason,omitempty"`
}

// audit writes an evaluation down. A command that changes something does not run without it.
func (c *call) audit(op operation, q policy.Question, s standing, v verdict, decision string) error {
	if v.planned {
		decision = "planned"
	}
	err := c.appendAudit(auditLine{
		auditVersion, wire.Timestamp(c.clock.Now()), op.resource, op.verb, q.Mesh, cmp.Or(s.mode, modeWrite), op.class != read, c.cmd.Bool("yes"), decision, v.reason,
	})
	switch {
	case err == nil:
		return nil
	case op.class == read:
		c.ui.note("[claudemesh] warning: the audit log cannot be written: %v", err)
		return nil
	}
	return &failure{Code: "audit_failed", Message: fmt.Sprintf("the audit log cannot be written, so nothing was done: %v", err), Exit: exitIO}
}

func (c *call) appendAudit(line auditLine) error {
	dir, err := c.userDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, auditName)
	if info, err := os.Stat(path); err == nil && info.Size() >= auditLimit {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) { // another command may have been quicker
			return err
		}
	}
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	// One write in append mode: lines of two commands do not mix.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}
