// Package claudeconf puts claudemesh into the files of Claude Code and takes it out again: the MCP server in ~/.claude.json; hooks, permission rules and the
// status line in ~/.claude/settings.json; the skill below ~/.claude/skills.
//
// The invariants it keeps: a byte that is not ours is never changed, whatever the layout, comments included; a file that cannot be understood is left as it
// is; a file is replaced in one step, keeps its mode, and is replaced where a symbolic link points to; installing twice changes nothing the second time; and
// what was there before is remembered, so that removing gives back the very bytes when nobody else has written since, and takes out our entries and nothing
// more when somebody has.
//
// Only package cli uses it.
package claudeconf
