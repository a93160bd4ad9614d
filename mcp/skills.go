package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/bus"
	"claudemesh/mcp/frame"
	"claudemesh/wire"
)

// Bounds of what is listed and shown of skills, whatever a broker lets through.
const (
	maxSkills      = 256
	maxDescription = 1 << 10 // bytes, as it is listed
	skillsRetry    = 5 * time.Second
	skillsFirst    = 1500 * time.Millisecond // a client that has just started asks at once: it is answered when the list has been read, or after so long
	skillLimit     = 15 * time.Second        // for one question
)

// eventSkillChange is the kind of the event that tells of a skill.
const eventSkillChange = wire.TypeSkillChange

// skillURI begins the address of a skill as a resource.
const skillURI = "skill://claudemesh/"

// Notifications that a list has to be read again.
const (
	methodPromptsChanged   = "notifications/prompts/list_changed"
	methodResourcesChanged = "notifications/resources/list_changed"
)

// skills are those of the session's mesh, as prompts and as resources. What is listed is what was known last: a client must not wait for a daemon that is away.
type skills struct {
	clock clockwork.Clock
	link  *link
	conn  *stdio
	log   *slog.Logger
	again chan struct{}

	first chan struct{} // closed when the list has been read for the first time

	mu   sync.Mutex
	list []wire.SkillEntry
}

func newSkills(clock clockwork.Clock, l *link, conn *stdio, log *slog.Logger) *skills {
	return &skills{clock: clock, link: l, conn: conn, log: log, again: make(chan struct{}, 1), first: make(chan struct{})}
}

// refresh has the list read again, soon.
func (k *skills) refresh() {
	select {
	case k.again <- struct{}{}:
	default:
	}
}

// run reads the list whenever it may have changed, and tells the client when it has. It ends with ctx, or when the client cannot be written to.
func (k *skills) run(ctx context.Context) error {
	var retry <-chan time.Time
	var once sync.Once
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.again:
		case <-retry:
		}
		retry = nil
		list, err := k.read(ctx)
		if err != nil {
			// The link to the broker may be just opening. A connection that is lost comes with a refresh of its own.
			k.log.Debug("skills not read", "reason", err)
			retry = k.clock.After(skillsRetry)
			continue
		}
		k.mu.Lock()
		same := slices.EqualFunc(k.list, list, func(a, b wire.SkillEntry) bool {
			return a.Name == b.Name && a.Description == b.Description && a.Author == b.Author
		})
		k.list = list
		k.mu.Unlock()
		once.Do(func() { close(k.first) })
		if same {
			continue
		}
		for _, method := range []string{methodPromptsChanged, methodResourcesChanged} {
			if err := k.conn.Notify(ctx, method, nil); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// read asks for the list. A session without the capability to read has none.
func (k *skills) read(ctx context.Context) ([]wire.SkillEntry, error) {
	s := k.link.get()
	if s == nil {
		return nil, bus.ErrNoDaemon
	}
	ctx, cancel := context.WithTimeout(ctx, skillLimit)
	defer cancel()
	var all []wire.SkillEntry
	for req := (wire.ListSkills{Page: wire.Page{Paged: true}}); ; {
		var out wire.SkillList
		err := s.call(ctx, wire.TypeListSkills, req, &out)
		if denied(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, e := range out.Skills {
			req.After = e.Name
			// A name that is not shown as it is could not be asked for again.
			if e.Name != "" && e.Name == frame.Line(e.Name) {
				all = append(all, e)
			}
		}
		if !out.More || len(out.Skills) == 0 || len(all) >= maxSkills {
			return all[:min(len(all), maxSkills)], nil
		}
	}
}

// denied reports whether the session is not allowed to ask.
func denied(err error) bool {
	var refused *bus.APIError
	return errors.Is(err, bus.ErrDenied) || errors.As(err, &refused) && refused.Code == 403
}

// answer answers what is asked of prompts and resources; the rest is the SDK's.
func (k *skills) answer(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (sdk.Result, error) {
		switch p := req.GetParams().(type) {
		case *sdk.ListPromptsParams:
			k.await(ctx)
			return k.prompts(), nil
		case *sdk.ListResourcesParams:
			k.await(ctx)
			return k.resources(), nil
		case *sdk.GetPromptParams:
			return k.prompt(ctx, p.Name)
		case *sdk.ReadResourceParams:
			return k.resource(ctx, p.URI)
		}
		return next(ctx, method, req)
	}
}

// await gives a daemon that is being reached for the first time a moment.
func (k *skills) await(ctx context.Context) {
	select {
	case <-k.first:
	case <-k.clock.After(skillsFirst):
	case <-ctx.Done():
	}
}

func (k *skills) known() []wire.SkillEntry {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list
}

func (k *skills) prompts() *sdk.ListPromptsResult {
	out := &sdk.ListPromptsResult{Prompts: []*sdk.Prompt{}}
	for _, e := range k.known() {
		// No arguments: a client splits them at blanks, and gives what is left over to nobody.
		out.Prompts = append(out.Prompts, &sdk.Prompt{Name: e.Name, Description: described(e)})
	}
	return out
}

func (k *skills) resources() *sdk.ListResourcesResult {
	out := &sdk.ListResourcesResult{Resources: []*sdk.Resource{}}
	for _, e := range k.known() {
		out.Resources = append(out.Resources, &sdk.Resource{URI: skillURI + url.PathEscape(e.Name), Name: e.Name, Description: described(e), MIMEType: "text/markdown"})
	}
	return out
}

// described is a description with its author in front.
func described(e wire.SkillEntry) string {
	text := strings.Join(strings.Fields(frame.Text(e.Description)), " ")
	return fmt.Sprintf("(skill of the mesh by %s) %s", author(e), cutAt(text, maxDescription))
}

func author(e wire.SkillEntry) string {
	if name := frame.Line(e.Author); name != "" {
		return name
	}
	return "an unknown member"
}

func (k *skills) prompt(ctx context.Context, name string) (sdk.Result, error) {
	s, slug, err := k.get(ctx, name)
	if err != nil {
		return nil, err
	}
	text, err := promptText(s, slug)
	if err != nil {
		return nil, internal(err.Error())
	}
	return &sdk.GetPromptResult{
		Description: described(s.SkillEntry),
		Messages:    []*sdk.PromptMessage{{Role: "user", Content: &sdk.TextContent{Text: text}}},
	}, nil
}

func (k *skills) resource(ctx context.Context, uri string) (sdk.Result, error) {
	rest, ok := strings.CutPrefix(uri, skillURI)
	name, err := url.PathUnescape(rest)
	if !ok || err != nil || name == "" {
		return nil, invalid("no such resource: skills are at " + skillURI + "NAME")
	}
	s, slug, err := k.get(ctx, name)
	if err != nil {
		return nil, err
	}
	text, err := resourceText(s, slug)
	if err != nil {
		return nil, internal(err.Error())
	}
	return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: uri, MIMEType: "text/markdown", Text: text}}}, nil
}

// get asks for one skill. Its errors are for the client.
func (k *skills) get(ctx context.Context, name string) (*wire.Skill, string, error) {
	if name == "" || len(name) > wire.MaxSkillName {
		return nil, "", invalid("no such skill")
	}
	s := k.link.get()
	if s == nil {
		return nil, "", internal("the claudemesh daemon does not answer right now, so the skill cannot be read; try again in a moment, or see: claudemesh daemon status")
	}
	ctx, cancel := context.WithTimeout(ctx, skillLimit)
	defer cancel()
	var out wire.SkillData
	switch err := s.call(ctx, wire.TypeGetSkill, wire.GetSkill{Name: name}, &out); {
	case denied(err):
		return nil, "", invalid("this session may not read skills: it lacks the capability read")
	case err != nil:
		return nil, "", internal("the skill cannot be read right now: " + frame.Line(err.Error()))
	case out.Skill == nil:
		return nil, "", invalid("there is no skill of that name on the mesh " + frame.Line(s.slug))
	}
	return out.Skill, s.slug, nil
}

func invalid(text string) error {
	return &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: text}
}

func internal(text string) error {
	return &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: text}
}
