// Package claude drives a Claude Code client as a user at a terminal does, with a stub of the Messages API for its model, so that a test can ask what really
// reached the model, in which request, and how often.
//
// The client is the real one when CLAUDE_BIN names it (the package is hundreds of megabytes, and not ours to ship), else the scripted one of package fake,
// which the test binary becomes when it is started under the name "claude". Both are driven and judged by the same code: what is typed goes through a
// pseudo-terminal, what the model is given is read from the requests, and what the client recorded from its transcript. What a test sees with the scripted
// client is a claim about the real one; the same tests, run with CLAUDE_BIN set, check the claim.
//
// Every client has a HOME, a terminal and an API of its own, an environment made from nothing, and ends with its test.
package claude
