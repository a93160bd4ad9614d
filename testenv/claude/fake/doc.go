// Package fake is a scripted Claude Code client: a program without a model of its own that does, in what matters to claudemesh, what version 2.1.330 was seen to
// do. It reads the same flags, settings and MCP configuration, starts the MCP servers, runs the hooks, keeps the transcript, and asks the Messages API that
// ANTHROPIC_BASE_URL names, in the same forms and the same order.
//
// Its user types lines: a prompt, or /clear or /exit, /mcp__server__prompt, @server:resource. A line "!notify KIND" stands for what the real one says after
// minutes of waiting, and "!exit N" for an end with another exit code. Channel messages are dropped in silence, as the real client does while the vendor's
// switch is off, unless CLAUDE_FAKE_CHANNELS is "on".
//
// The tests of package claude ask both clients the same questions; what this one does differently is a defect here. MCP is written by hand: the SDK's client knows neither
// the probe before initialize nor channel notifications, and would hide what is to be tested.
package fake
