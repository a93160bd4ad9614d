package cli

import (
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// class is what a command does, as far as its approval is concerned.
type class int

const (
	free  class = iota + 1 // never asked about: it tells of the program itself, or is run by Claude Code, or starts what is asked about itself
	read                   // looks
	write                  // says or changes something as the member
	admin                  // decides about others, about keys, or about this machine's set-up
)

func (c class) String() string { return [...]string{"", "free", "read", "write", "admin"}[c] }

// operation is a command as a policy names it. peer: its first argument is one. reads and writes are flags that make it read or write, whatever it is without.
type operation struct {
	resource, verb string
	class          class
	peer           bool
	reads, writes  []string
}

// operations has a row for every command that does something, by its words. It is the only place that decides what a command is; a test fails for a command
// without a row.
var operations = map[string]operation{
	"create": {"mesh", "create", write, false, nil, nil}, "join": {"mesh", "join", write, false, nil, nil}, "list": {"mesh", "list", read, false, nil, nil},
	"share": {"mesh", "share", admin, false, []string{"list"}, nil}, "info": {"mesh", "info", read, false, nil, nil}, "rename": {"mesh", "rename", admin, false, nil, nil},
	"leave": {"mesh", "leave", admin, false, nil, nil}, "delete": {"mesh", "delete", admin, false, nil, nil},
	"settings": {"mesh", "settings", read, false, nil, []string{"send-rate", "send-burst"}},

	"send": {"message", "send", write, true, nil, nil}, "inbox": {"message", "inbox", read, false, nil, nil}, "trace": {"message", "trace", read, false, nil, nil},
	"message send": {"message", "send", write, true, nil, nil}, "message inbox": {"message", "inbox", read, false, nil, nil}, "message status": {"message", "status", read, false, nil, nil},
	"msg-status": {"message", "status", read, false, nil, nil},

	"peer list": {"peer", "list", read, false, nil, nil}, "peers": {"peer", "list", read, false, nil, nil},
	"peer kick": {"peer", "kick", admin, true, nil, nil}, "kick": {"peer", "kick", admin, true, nil, nil},
	"peer disconnect": {"peer", "disconnect", admin, true, nil, nil}, "disconnect": {"peer", "disconnect", admin, true, nil, nil},
	"peer ban": {"peer", "ban", admin, true, nil, nil}, "ban": {"peer", "ban", admin, true, nil, nil},
	"peer unban": {"peer", "unban", admin, true, nil, nil}, "unban": {"peer", "unban", admin, true, nil, nil}, "peer bans": {"peer", "bans", read, false, nil, nil}, "bans": {"peer", "bans", read, false, nil, nil},
	"peer verify": {"peer", "verify", read, true, nil, []string{"confirm"}}, "verify": {"peer", "verify", read, true, nil, []string{"confirm"}},
	"grant": {"grant", "grant", admin, true, nil, nil}, "revoke": {"grant", "revoke", admin, true, nil, nil}, "block": {"grant", "block", admin, true, nil, nil},
	"unblock": {"grant", "unblock", admin, true, nil, nil}, "grants": {"grant", "list", read, false, nil, nil},
	"member": {"member", "list", read, false, nil, nil}, "member list": {"member", "list", read, false, nil, nil}, "member show": {"member", "show", read, false, nil, nil}, "member edit": {"member", "edit", admin, true, nil, nil},
	"apikey create": {"apikey", "create", admin, false, nil, nil}, "apikey list": {"apikey", "list", read, false, nil, nil}, "apikey revoke": {"apikey", "revoke", admin, false, nil, nil},

	"session run": {"session", "run", free, false, nil, nil}, "launch": {"session", "launch", free, false, nil, nil}, "workspace": {"session", "launch", free, false, nil, nil},
	"session list": {"session", "list", read, false, nil, nil}, "session revoke": {"session", "revoke", admin, false, nil, nil},

	"status": {"profile", "view", read, false, nil, nil}, "status set": {"profile", "status", write, false, nil, nil}, "summary": {"profile", "summary", write, false, nil, nil},
	"visible": {"profile", "visible", write, false, nil, nil}, "profile status set": {"profile", "status", write, false, nil, nil},
	"profile summary": {"profile", "summary", write, false, nil, nil}, "profile visible": {"profile", "visible", write, false, nil, nil},
	"profile":    {"profile", "view", read, false, nil, []string{"avatar", "title", "bio", "capability", "capabilities", "name", "role-tag", "groups", "message-mode", "clear"}},
	"group join": {"group", "join", write, false, nil, nil}, "group leave": {"group", "leave", write, false, nil, nil}, "group list": {"group", "list", read, false, nil, nil},

	"topic create": {"topic", "create", write, false, nil, nil}, "topic list": {"topic", "list", read, false, nil, nil}, "topic join": {"topic", "join", write, false, nil, nil},
	"topic leave": {"topic", "leave", write, false, nil, nil}, "topic members": {"topic", "members", read, false, nil, nil}, "topic post": {"topic", "post", write, false, nil, nil},
	"topic history": {"topic", "history", read, false, nil, nil}, "topic tail": {"topic", "tail", read, false, nil, nil}, "topic search": {"topic", "search", read, false, nil, nil},
	"topic read": {"topic", "read", write, false, nil, nil}, "topic rotate": {"topic", "rotate", admin, false, nil, nil},

	"remind": {"schedule", "msg", write, false, nil, nil}, "remind list": {"schedule", "list", read, false, nil, nil}, "remind cancel": {"schedule", "cancel", write, false, nil, nil},
	"schedule msg": {"schedule", "msg", write, false, nil, nil}, "schedule list": {"schedule", "list", read, false, nil, nil}, "schedule cancel": {"schedule", "cancel", write, false, nil, nil},
	"watch add": {"watch", "add", write, false, nil, nil}, "watch list": {"watch", "list", read, false, nil, nil}, "watch remove": {"watch", "remove", write, false, nil, nil},
	"webhook create": {"webhook", "create", admin, false, nil, nil}, "webhook list": {"webhook", "list", read, false, nil, nil}, "webhook delete": {"webhook", "delete", admin, false, nil, nil},

	"state get": {"state", "get", read, false, nil, nil}, "state set": {"state", "set", write, false, nil, nil}, "state list": {"state", "list", read, false, nil, nil},
	"state delete": {"state", "delete", write, false, nil, nil},
	"remember":     {"memory", "remember", write, false, nil, nil}, "recall": {"memory", "recall", read, false, nil, nil}, "forget": {"memory", "forget", write, false, nil, nil},
	"memory remember": {"memory", "remember", write, false, nil, nil}, "memory recall": {"memory", "recall", read, false, nil, nil}, "memory forget": {"memory", "forget", write, false, nil, nil},
	"skill": {"skill", "list", read, false, nil, nil}, "skill list": {"skill", "list", read, false, nil, nil}, "skill get": {"skill", "get", read, false, nil, nil},
	"skill publish": {"skill", "publish", write, false, nil, nil}, "skill remove": {"skill", "remove", write, false, nil, nil},
	"file share": {"file", "share", write, false, nil, nil}, "file get": {"file", "get", read, false, nil, nil}, "file list": {"file", "list", read, false, nil, nil},
	"file status": {"file", "status", read, false, nil, nil}, "file grant": {"file", "grant", write, false, nil, nil}, "file delete": {"file", "delete", write, false, nil, nil},
	"vault set": {"vault", "set", write, false, nil, nil}, "vault get": {"vault", "get", read, false, nil, nil}, "vault list": {"vault", "list", read, false, nil, nil},
	"vault delete":    {"vault", "delete", write, false, nil, nil},
	"service publish": {"service", "publish", write, false, nil, nil}, "service list": {"service", "list", read, false, nil, nil}, "service tools": {"service", "tools", read, false, nil, nil},
	"service call": {"service", "call", write, false, nil, nil},

	"register": {"account", "register", admin, false, nil, nil}, "login": {"account", "login", admin, false, nil, nil}, "login approve": {"account", "approve", admin, false, nil, nil},
	"login deny": {"account", "deny", admin, false, nil, nil}, "login pass": {"account", "pass", admin, false, nil, nil}, "logout": {"account", "logout", admin, false, nil, nil},
	"whoami": {"account", "whoami", read, false, nil, nil}, "sync": {"account", "sync", admin, false, nil, nil},
	"backup": {"machine", "backup", admin, false, nil, nil}, "restore": {"machine", "restore", admin, false, nil, nil},
	"install": {"machine", "install", admin, false, nil, nil}, "uninstall": {"machine", "uninstall", admin, false, nil, nil},
	"url-handler install": {"machine", "url-handler", admin, false, nil, nil}, "url-handler uninstall": {"machine", "url-handler", admin, false, nil, nil},
	"url-handler open": {"mesh", "join", write, false, nil, nil},
	"doctor":           {"machine", "doctor", read, false, nil, []string{"fix"}},
	"daemon up":        {"daemon", "up", free, false, nil, nil}, "daemon down": {"daemon", "down", admin, false, nil, nil}, "daemon restart": {"daemon", "restart", admin, false, nil, nil},
	"daemon status": {"daemon", "status", read, false, nil, nil}, "daemon version": {"daemon", "version", read, false, nil, nil}, "daemon outbox": {"daemon", "outbox", read, false, nil, nil},
	"daemon outbox list": {"daemon", "outbox", read, false, nil, nil}, "daemon outbox requeue": {"daemon", "requeue", write, false, nil, nil},
	"daemon install-service": {"machine", "install", admin, false, nil, nil}, "daemon uninstall-service": {"machine", "uninstall", admin, false, nil, nil},
	"daemon logs": {"daemon", "logs", read, false, nil, nil}, "daemon accept-host": {"daemon", "accept-host", admin, false, nil, nil}, "daemon remint": {"daemon", "remint", admin, false, nil, nil},
	"bus tap": {"bus", "tap", read, false, nil, nil}, "bus context": {"bus", "context", admin, false, nil, nil},
	"broker serve": {"broker", "serve", free, false, nil, nil}, "broker store": {"broker", "store", free, false, nil, nil}, "broker status": {"broker", "status", read, false, nil, nil},
	"broker check": {"broker", "check", write, false, nil, nil}, "broker context": {"broker", "context", admin, false, nil, nil},

	"me": {"me", "overview", read, false, nil, nil}, "me overview": {"me", "overview", read, false, nil, nil}, "workspace overview": {"me", "overview", read, false, nil, nil},
	"top": {"me", "top", read, false, nil, nil}, "test": {"machine", "test", write, false, nil, nil},
	"upgrade": {"machine", "upgrade", read, false, nil, nil}, // it installs nothing

	// Run by Claude Code, or about the program itself.
	"mcp": {"", "", free, false, nil, nil}, "hook drain": {"", "", free, false, nil, nil}, "hook presence": {"", "", free, false, nil, nil}, "hook wait": {"", "", free, false, nil, nil},
	"hook idle": {"", "", free, false, nil, nil}, "hook working": {"", "", free, false, nil, nil}, "hook dnd": {"", "", free, false, nil, nil},
	"status-line": {"", "", free, false, nil, nil}, "version": {"", "", free, false, nil, nil}, "help": {"", "", free, false, nil, nil},
	"completion": {"", "", free, false, nil, nil}, "__complete": {"", "", free, false, nil, nil},
	"policy": {"", "", free, false, nil, nil}, "policy show": {"", "", free, false, nil, nil}, "policy check": {"", "", free, false, nil, nil}, "policy log": {"", "", free, false, nil, nil},
	"policy init": {"policy", "init", admin, false, nil, nil},
}

// commandWords are the words of a command without the program's name, aliases replaced.
func commandWords(cmd *urfave.Command) string {
	var words []string
	for _, c := range cmd.Lineage() {
		words = append(words, c.Name)
	}
	slices.Reverse(words)
	return strings.Join(words[1:], " ")
}

// operationOf looks a command up by its words, and takes the flags into account that are set. The second form of a command, under a noun that groups others
// (workspace create), is what its last words are.
func operationOf(words string, isSet func(flag string) bool) (operation, bool) {
	op, ok := operations[words]
	if rest, second := strings.CutPrefix(words, "workspace "); !ok && second {
		op, ok = operations[rest]
	}
	switch {
	case slices.ContainsFunc(op.writes, isSet):
		op.class = write
		if op.verb == "view" {
			op.verb = "edit"
		}
	case slices.ContainsFunc(op.reads, isSet):
		op.class = read
	}
	return op, ok
}
