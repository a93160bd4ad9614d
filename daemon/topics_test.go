package daemon

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func topicAsk[T any](t *testing.T, d *Daemon, op string, in any) T {
	t.Helper()
	out, err := ask[T](t, d.call, bus.User, "team", op, in)
	must(t, err)
	return out
}

// claim makes the topics believe what a broker might say of one.
func claim(m *meshRun, row wire.Topic) {
	m.topics.mu.Lock()
	defer m.topics.mu.Unlock()
	m.topics.byID[row.ID], m.topics.listed = row, true
}

func TestWhatATopicsPostLeavesAs(t *testing.T) {
	d, m := running(t)
	eventually(t, "the topics to be listed", func() bool { _, found, settled := m.topics.find("general"); return found && settled })
	made := topicAsk[bus.TopicCreated](t, d, bus.CallTopicCreate, bus.TopicCreate{Name: "plans"})
	row, found, _ := m.topics.find("PLANS")
	if !found || row.ID != made.ID || row.Generation != 1 || !made.Sealed {
		t.Fatalf("%+v, %+v", row, made)
	}
	general, _, _ := m.topics.find("general")
	m.topics.looking.Lock() // what is claimed below stays
	defer m.topics.looking.Unlock()
	post := func(spec, target string) outbox.Row {
		return outbox.Row{NewRow: outbox.NewRow{ID: "r", Mesh: "team", Kind: bus.SendTopic, Target: target, TargetSpec: spec, Payload: []byte("the text")}}
	}
	key, has := m.topics.key(made.ID, 1)
	if !has {
		t.Fatal("the maker has no key")
	}
	spec, version, nonce, body, err := m.topics.seal(post("#"+made.ID, "#plans"))
	must(t, err)
	if text, err := key.OpenPost(nonce, body); err != nil || string(text) != "the text" || spec != "#"+made.ID || version != wire.BodySealed {
		t.Errorf("%s, version %d, %q, %v", spec, version, text, err)
	}
	if spec, version, _, body, err := m.topics.seal(post("#"+general.ID, "#general")); err != nil || string(body) != "the text" || spec != "#"+general.ID || version != wire.BodyPlain {
		t.Errorf("in clear: %s, version %d, %q, %v", spec, version, body, err)
	}

	t.Run("nothing leaves in clear, or under an old key, once there was a key", func(t *testing.T) {
		claim(m, wire.Topic{ID: made.ID, Name: "plans", Role: "lead"})
		if _, _, _, body, err := m.topics.seal(post("#"+made.ID, "#plans")); !errors.Is(err, errKeyWithdrawn) || body != nil {
			t.Errorf("%q, %v", body, err)
		}
		_, err := ask[bus.SendReply](t, d.accept, bus.User, "team", bus.SendTopic, bus.SendRequest{To: "#plans", Body: "x"})
		var api *bus.APIError
		if !errors.As(err, &api) || api.Reason != "topic_key_withdrawn" {
			t.Errorf("accepted: %v", err)
		}
		// Also for a daemon that has just started.
		m.topics.seen = &seenKeys{path: m.topics.seen.path}
		if _, _, _, _, err := m.topics.seal(post("#"+made.ID, "#plans")); !errors.Is(err, errKeyWithdrawn) {
			t.Errorf("after a restart: %v", err)
		}
		must(t, m.topics.seen.note(made.ID, 3))
		claim(m, wire.Topic{ID: made.ID, Name: "plans", Role: "lead", Generation: 1, HasKey: true})
		if _, _, _, _, err := m.topics.seal(post("#"+made.ID, "#plans")); !errors.Is(err, errKeyWithdrawn) {
			t.Errorf("under an old key: %v", err)
		}
		must(t, os.WriteFile(m.topics.seen.path, []byte("{"), 0o600))
		m.topics.seen = &seenKeys{path: m.topics.seen.path}
		if _, _, _, body, err := m.topics.seal(post("#"+general.ID, "#general")); err == nil {
			t.Errorf("with a file that cannot be read: %q", body)
		}
		must(t, os.Remove(m.topics.seen.path))
		m.topics.seen = &seenKeys{path: m.topics.seen.path}
	})
	t.Run("it waits for a key, and for the list, and is refused where it does not belong", func(t *testing.T) {
		claim(m, wire.Topic{ID: "locked", Name: "locked", Role: "member", Generation: 1})
		claim(m, wire.Topic{ID: "foreign", Name: "foreign", Generation: 1})
		for ref, want := range map[string]struct {
			err     error
			verdict verdict
		}{"locked": {errNoTopicKey, later}, "foreign": {errNotInTopic, refused}, "nowhere": {errNoTopic, refused}} {
			_, _, _, _, err := m.topics.seal(post("#"+ref, "#"+ref))
			if v, reason := judge(wire.Ack{}, err); !errors.Is(err, want.err) || v != want.verdict || reason == "" {
				t.Errorf("%s: %v, verdict %d", ref, err, v)
			}
		}
		m.topics.lost()
		_, _, _, _, err := m.topics.seal(post("", "#plans"))
		if v, _ := judge(wire.Ack{}, err); !errors.Is(err, errTopicsNotListed) || v != soon {
			t.Errorf("not listed: %v", err)
		}
		for _, code := range []string{wire.AckForbidden, wire.AckNotFound} {
			if v, _ := judge(wire.Ack{Code: code, Error: code + ": x"}, nil); v != refused {
				t.Errorf("%s: verdict %d", code, v)
			}
		}
	})
	t.Run("what was seen of keys is in a file of its own", func(t *testing.T) {
		if info, err := os.Stat(filepath.Join(d.opt.Dir, seenKeysDir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info, err)
		}
	})
}

func TestPostsOfAllGenerationsAreOpened(t *testing.T) {
	_, m := running(t)
	old, newer := mesh.TopicKey{1}, mesh.TopicKey{2}
	m.topics.remember("t", 1, old)
	m.topics.remember("t", 2, newer)
	src := bridge.Source{Key: m.joined.Pubkey}
	push := func(key mesh.TopicKey, version int) wire.Push {
		nonce, box, err := key.SealPost([]byte("the text"), m.d.opt.Rand)
		must(t, err)
		return wire.Push{
			TargetSpec: "#t", Topic: "plans\x1b", BodyVersion: version, MessageID: "m", SenderPubkey: strings.Repeat("ab", 32),
			Nonce: base64.StdEncoding.EncodeToString(nonce), Ciphertext: base64.StdEncoding.EncodeToString(box),
		}
	}
	for name, key := range map[string]mesh.TopicKey{"old": old, "new": newer} {
		if msg := m.open(src, push(key, wire.BodySealed), nil); msg.Body != "the text" || msg.ToKind != inbox.ToTopic || msg.Topic != "plans" {
			t.Errorf("%s: %+v", name, msg)
		}
	}
	closed := m.open(src, push(mesh.TopicKey{9}, wire.BodySealed), nil)
	if !stillClosed(closed) || closed.Body != "" || len(closed.Nonce) != mesh.NonceSize || len(closed.Ciphertext) == 0 || closed.TargetSpec != "#t" {
		t.Errorf("%+v", closed)
	}
	if msg := m.open(src, push(old, wire.BodyPlain), nil); !msg.Undecryptable {
		t.Errorf("sealed bytes that say they are plain: %+v", msg)
	}
	garbage := push(old, wire.BodySealed)
	garbage.Ciphertext = "%%"
	if msg := m.open(src, garbage, nil); !stillClosed(msg) || msg.ToKind != inbox.ToTopic {
		t.Errorf("%+v", msg)
	}
}
