package cli

import "context"

// workspaceVerb is the reference's second name for what is about a mesh: the same verbs once more, so that its users' fingers and scripts find them.
func workspaceVerb() verb {
	launch := launchVerb()
	open := launch
	open.aliases = []string{"connect", "open"}
	overview := meVerb()
	overview.name, overview.aliases, overview.subs = "overview", nil, nil
	return verb{
		name: "workspace", args: "", short: "meshes, under their other name: the same commands as without this word",
		long:     "Alone it is claudemesh launch.",
		examples: []string{"claudemesh workspace list", "claudemesh workspace join INVITE"},
		fails:    launch.fails,
		flags:    launch.flags,
		subs: []verb{
			open, listVerb(), infoVerb(), createVerb(), joinVerb(), deleteVerb(), renameVerb(), shareVerb(), overview,
		},
		run: func(ctx context.Context, c *call) error {
			if words := c.args()[:len(c.args())-c.behind]; len(words) > 0 {
				return c.unknownCommand(words[0])
			}
			return launch.run(ctx, c)
		},
	}
}
