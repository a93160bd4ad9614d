package httpapi

import (
	"context"
	"encoding/json"
	"slices"

	"claudemesh/bus"
	"claudemesh/wire"
)

type profileStep struct {
	op     string
	fields []string
}

// profileSteps are the operations that a profile's fields belong to, in the order they are carried out.
var profileSteps = [...]profileStep{
	{bus.CallSetStatus, []string{"status"}},
	{bus.CallSetSummary, []string{"summary"}},
	{bus.CallSetVisible, []string{"visible"}},
	{bus.CallSetProfile, []string{"avatar", "title", "bio", "capabilities"}},
}

// profile says what the caller tells of itself, on the mesh that is named or the session's, else on all. What it answers as applied has been answered by the
// broker; a refusal in between says what was done before it.
func (s *Server) profile(ctx context.Context, c *caller, r *request) (int, any, error) {
	var in object
	if err := r.decode(&in); err != nil {
		return 0, nil, err
	}
	var body string
	if raw, ok := in["mesh"]; ok {
		if err := json.Unmarshal(raw, &body); err != nil {
			return 0, nil, refusal(400, "bad_request", "mesh is a string")
		}
		delete(in, "mesh")
	}
	meshes, err := s.several(c, r, body)
	if err != nil {
		return 0, nil, err
	}
	if err := checkProfile(in); err != nil {
		return 0, nil, err
	}
	if len(meshes) == 0 {
		return 0, nil, refusal(404, "no_mesh", "no mesh is joined")
	}
	applied := []string{}
	for _, slug := range meshes {
		for _, step := range profileSteps {
			change := object{}
			for _, f := range step.fields {
				if v, ok := in[f]; ok {
					change[f] = v
				}
			}
			if len(change) == 0 {
				continue
			}
			if _, err := c.call(ctx, slug, step.op, change); err != nil {
				e := *asAPI(err)
				e.Data = map[string]any{"mesh": slug, "applied": applied}
				return 0, nil, &e
			}
			for f := range change {
				if !slices.Contains(applied, f) {
					applied = append(applied, f)
				}
			}
		}
	}
	slices.Sort(applied)
	return 0, map[string]any{"ok": true, "applied": applied, "meshes": meshes}, nil
}

// checkProfile judges the whole body before anything of it is done.
func checkProfile(in object) error {
	if len(in) == 0 {
		return refusal(400, "nothing_to_do", "the body has none of status, summary, visible, avatar, title, bio and capabilities")
	}
	for name := range in {
		if !slices.ContainsFunc(profileSteps[:], func(s profileStep) bool { return slices.Contains(s.fields, name) }) {
			return refusal(400, "unknown_field", "a profile has no field of that name: "+cut(name))
		}
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return refusal(400, "bad_request", "the body is not JSON")
	}
	var typed struct {
		Status  *string `json:"status"`
		Summary *string `json:"summary"`
		Visible *bool   `json:"visible"`
		wire.SetProfile
	}
	if err := json.Unmarshal(raw, &typed); err != nil {
		return refusal(400, "bad_request", "a field of the profile has the wrong type: "+err.Error())
	}
	if typed.Status != nil {
		if err := (wire.SetStatus{Status: *typed.Status}).Validate(); err != nil {
			return refusal(400, "bad_request", err.Error())
		}
	}
	return nil
}

// cut bounds what is said back of a caller's own words.
func cut(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
