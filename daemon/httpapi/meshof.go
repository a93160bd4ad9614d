package httpapi

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"claudemesh/bus"
)

// Which mesh a request is about: the one it names, else the session's, else the only one. The rule is the same for every route, and for verbs of the CLI.

// maxGathered bounds what one answer collects from several pages or meshes, in bytes.
const maxGathered = 16 << 20

// named is the mesh that a request names: in its body or its query, and the same if in both.
func (r *request) named(body string) (string, error) {
	body, query := strings.TrimSpace(body), strings.TrimSpace(r.URL.Query().Get("mesh"))
	if body != "" && query != "" && body != query {
		return "", refusal(400, "bad_request", "the body and the URL name different meshes")
	}
	if body == "" {
		return query, nil
	}
	return body, nil
}

// one is the mesh of a request that is about exactly one.
func (s *Server) one(c *caller, r *request, body string) (string, error) {
	name, err := r.named(body)
	if err != nil || name != "" {
		return name, err
	}
	if c.grant.Role == bus.RoleSession {
		return c.grant.Mesh, nil
	}
	joined := s.cfg.Meshes()
	switch len(joined) {
	case 0:
		return "", refusal(404, "no_mesh", "no mesh is joined")
	case 1:
		return joined[0], nil
	}
	e := refusal(400, "mesh_required", "several meshes are joined: name one with mesh")
	e.Data = map[string]any{"attached": joined}
	return "", e
}

// several are the meshes of a request that may be about all.
func (s *Server) several(c *caller, r *request, body string) ([]string, error) {
	name, err := r.named(body)
	switch {
	case err != nil:
		return nil, err
	case name != "":
		return []string{name}, nil
	case c.grant.Role == bus.RoleSession:
		return []string{c.grant.Mesh}, nil
	}
	return s.cfg.Meshes(), nil
}

// failedMesh tells, beside an answer from other meshes, of one that gave none.
type failedMesh struct {
	Mesh   string          `json:"mesh"`
	Reason json.RawMessage `json:"reason"`
}

// gather asks the meshes at the same time and puts their rows together in the order of the meshes, each row with its mesh. Where only one was asked, its refusal is the
// answer; of several, those that fail are named in "failed", unless all do.
func gather(meshes []string, name string, ask func(slug string) ([]object, error)) (any, error) {
	rows, errs := make([][]object, len(meshes)), make([]error, len(meshes))
	var wg sync.WaitGroup
	for i, slug := range meshes {
		wg.Go(func() { rows[i], errs[i] = ask(slug) })
	}
	wg.Wait()
	all, failed := []object{}, []failedMesh{}
	var first error
	for i, slug := range meshes {
		if errs[i] != nil {
			if first == nil {
				first = errs[i]
			}
			failed = append(failed, failedMesh{slug, asAPI(errs[i]).Body()})
		}
		for _, row := range rows[i] {
			all = append(all, row.set("mesh", slug))
		}
	}
	if first != nil && len(failed) == len(meshes) {
		return nil, first
	}
	out := object{}.set(name, all)
	if len(failed) > 0 {
		out.set("failed", failed)
	}
	return out, nil
}

// firstFound asks the meshes one after the other until one has it. If none has, notFound is the answer, or the first refusal for another reason.
func firstFound(meshes []string, notFound error, ask func(slug string) (object, bool, error)) (object, string, error) {
	var failed error
	for _, slug := range meshes {
		o, found, err := ask(slug)
		if err != nil && failed == nil {
			failed = err
		}
		if err == nil && found {
			return o, slug, nil
		}
	}
	if failed != nil {
		return nil, "", failed
	}
	return nil, "", notFound
}

// pages reads a list of the broker page by page: rows under name, the next page behind the key of the last row.
func (c *caller) pages(ctx context.Context, slug, op string, in map[string]any, name, key string) ([]object, error) {
	var all []object
	size := 0
	in["paged"] = true
	for {
		raw, err := c.call(ctx, slug, op, in)
		if err != nil {
			return nil, err
		}
		o, err := parse(raw)
		if err != nil {
			return nil, err
		}
		rows, err := o.list(name)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		var more bool
		_ = json.Unmarshal(o["more"], &more) // absent is false
		if size += len(raw); !more || len(rows) == 0 {
			return all, nil
		}
		if size > maxGathered {
			return nil, refusal(413, "answer_too_large", "there is more than one answer holds; ask for less")
		}
		in["after"] = rows[len(rows)-1][key]
	}
}
