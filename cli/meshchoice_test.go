package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/mcp/feed"
)

// aboutOneMesh are the verbs that need one mesh, with arguments that are enough to get there.
var aboutOneMesh = []string{
	"send bob hi", "message send bob hi", "info", "share", "share --list", "share --revoke ABCD2345", "delete --yes", "session run --name x -- true",
	"member list", "member", "member show", "member edit --name x", "grant bob dm", "revoke bob dm", "block bob", "unblock bob", "grants", "verify",
	"kick bob --yes", "disconnect bob --yes", "ban bob --yes", "unban bob", "bans", "apikey create x", "apikey list", "apikey revoke x",
	"peer kick bob --yes", "peer disconnect bob --yes", "peer ban bob --yes", "peer unban bob", "peer bans", "peer verify",
	"status set idle", "summary x", "visible yes", "profile", "profile status set idle", "profile summary x", "profile visible yes",
	"group join @x", "group leave @x", "group list", "settings",
	"topic create x", "topic list", "topic join x", "topic leave x", "topic members x", "topic post x hi", "topic history x", "topic tail x",
	"topic search x y", "topic read x", "topic rotate x",
	"remind hi --in 10m", "remind list", "remind cancel x", "schedule msg hi --in 10m", "schedule list", "schedule cancel x",
	"watch add https://example.org", "watch list", "watch remove x", "webhook create x", "webhook list", "webhook delete x --yes",
	"state get k", "state set k v", "state list", "state delete k", "remember x", "recall x", "forget 00000000-0000-4000-8000-000000000000",
	"memory remember x", "memory recall x", "memory forget 00000000-0000-4000-8000-000000000000",
	"skill list", "skill get x", "skill publish FILE", "skill remove x --yes", "file share FILE", "file get x", "file list", "file status x", "file grant x --to bob",
	"file delete x --yes", "vault set k v", "vault get k", "vault list", "vault delete k --yes",
	"service list", "service tools x", "service call x y", "service publish x -- true", "workspace info", "workspace share", "workspace delete --yes",
	"launch", "workspace", "workspace launch",
}

// aboutAllMeshes are those that are about every joined mesh when none is named.
var aboutAllMeshes = []string{
	"peers", "peer list", "inbox", "message inbox", "status", "me", "me overview", "workspace overview", "session list", "session revoke x", "message status abcdefgh12345678", "msg-status abcdefgh12345678",
}

// notAboutAMesh are the verbs, or groups, that have no use for --mesh, or name the mesh as an argument.
var notAboutAMesh = []string{
	"create", "join", "list", "rename", "leave", "workspace list", "workspace create", "workspace join", "workspace rename", // name it, or are about all
	"top", "trace", "daemon", // look at what is or was on this machine, also of a mesh that was left
	"skill", // alone it prints the bundled text
	"install", "uninstall", "doctor", "status-line", "bus", "broker", "mcp", "hook", "completion", "__complete", "version", "help", "upgrade",
	"register", "login", "logout", "whoami", "sync", "backup", "restore", "policy", "url-handler", // about the machine, or an account, with whatever meshes it has
	"test", // every mesh unless one is named; with a daemon only
}

// Config files of a machine that has joined two meshes, and one.
const (
	twoMeshes = `{"version":1,"meshes":[{"slug":"alpha","name":"alpha"},{"slug":"beta","name":"beta"}]}`
	oneMesh   = `{"version":1,"meshes":[{"slug":"alpha","name":"alpha"}]}`
)

func TestEveryVerbChoosesItsMeshByTheSameRule(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "SKILL.md")
	if err := os.WriteFile(file, []byte("---\nname: x\ndescription: y\n---\ntext\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	claude := filepath.Join(dir, "claude")
	if err := os.WriteFile(claude, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A machine on which no daemon may be started: whoever has chosen a mesh gets as far as that.
	machine := func(t *testing.T, config string) map[string]string {
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, ".claudemesh"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, ".claudemesh", "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		return map[string]string{"HOME": home, noSpawnEnv: "1", strictEnv: "1", "PATH": os.Getenv("PATH"), envClaude: claude, "USER": "ada"}
	}
	type answer struct {
		Error  string
		Joined []string
	}
	ask := func(t *testing.T, env map[string]string, words string, more ...string) (int, answer) {
		t.Helper()
		args := append([]string{"--json"}, more...)
		code, out, errs := runIn(t, env, append(args, strings.Fields(strings.ReplaceAll(words, "FILE", file))...)...)
		var a answer
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			t.Fatalf("exit %d\n%s%s", code, out, errs)
		}
		return code, a
	}
	for _, words := range slices.Concat(aboutOneMesh, aboutAllMeshes) {
		all := slices.Contains(aboutAllMeshes, words)
		t.Run(words, func(t *testing.T) {
			two := machine(t, twoMeshes)
			if code, a := ask(t, two, words, "--mesh=nope"); code != exitNotFound || a.Error != "mesh_not_joined" || !slices.Equal(a.Joined, []string{"alpha", "beta"}) {
				t.Errorf("a mesh that is not joined: exit %d, %+v", code, a)
			}
			code, a := ask(t, two, words)
			switch {
			case all && a.Error != "no_daemon":
				t.Errorf("none named: exit %d, %+v; it is about all", code, a)
			case !all && (code != exitUsage || a.Error != "mesh_required" || !slices.Equal(a.Joined, []string{"alpha", "beta"})):
				t.Errorf("none named: exit %d, %+v", code, a)
			}
			if code, a := ask(t, two, words, "--mesh=beta"); a.Error != "no_daemon" {
				t.Errorf("one named: exit %d, %+v", code, a)
			}
			if code, a := ask(t, machine(t, oneMesh), words); a.Error != "no_daemon" {
				t.Errorf("the only one: exit %d, %+v", code, a)
			}
			two[feed.EnvToken], two[feed.EnvMesh], two[feed.EnvSession] = strings.Repeat("a", 64), "beta", "s"
			if code, a := ask(t, two, words); a.Error != "no_daemon" {
				t.Errorf("the session's: exit %d, %+v", code, a)
			}
		})
	}
	t.Run("a verb that is in no table", func(t *testing.T) {
		tables := slices.Concat(aboutOneMesh, aboutAllMeshes)
		everyVerb(func(path string, _ *urfave.Command, _ verb) {
			group, _, _ := strings.Cut(path, " ")
			named := func(words string) bool { return words == path || strings.HasPrefix(words, path+" ") }
			if !slices.ContainsFunc(tables, named) && !slices.Contains(notAboutAMesh, path) && !(slices.Contains(notAboutAMesh, group) && group != "skill" && group != "workspace") {
				t.Errorf("say in a table above how %q chooses its mesh", path)
			}
		})
	})
}
