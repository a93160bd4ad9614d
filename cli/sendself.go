package cli

import (
	"slices"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/mesh"
)

// selfFlag lets a message go to the sender's own key.
func selfFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "self", Usage: "TO may be your own member key: a message to your other sessions"}
}

// checkSelf refuses the own member key where --self does not say that it is meant: who pastes a key wants to reach somebody else. Where the config cannot be
// read, as in a session that may not, nothing is known and nothing refused.
func (s *sending) checkSelf(target mesh.Target) error {
	if target.Kind != mesh.TargetKey || s.cmd.Bool("self") {
		return nil
	}
	dir, err := mesh.ConfigDir(s.getenv)
	if err != nil {
		return nil
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return nil
	}
	if slices.ContainsFunc(config.Meshes, func(j mesh.Joined) bool { return j.Slug == s.slug && j.Pubkey == target.Ref }) {
		return &failure{Code: "own_key", Message: "this is your own key on mesh " + s.slug, Hint: "to write to your other sessions, say so with --self", Exit: exitUsage}
	}
	return nil
}
