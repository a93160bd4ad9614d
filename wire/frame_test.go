package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
)

func TestPeekRoutesAFrameOrRefusesIt(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Head
		err      error
	}{
		{"a request", `{"type":"list_peers","_reqId":"r1"}`, Head{Type: "list_peers", ReqID: "r1"}, nil},
		{"white space around", " \n{\"type\":\"x\"} ", Head{Type: "x"}, nil},
		{"no type", `{"_reqId":"r1"}`, Head{}, ErrMalformed},
		{"a type that is no string", `{"type":7}`, Head{}, ErrMalformed},
		{"an array", `[{"type":"x"}]`, Head{}, ErrMalformed},
		{"null", `null`, Head{}, ErrMalformed},
		{"nothing", ``, Head{}, ErrMalformed},
		{"half a frame", `{"type":"x"`, Head{}, ErrMalformed},
		{"a request id that is too long", `{"type":"x","_reqId":"` + strings.Repeat("r", MaxIDBytes+1) + `"}`, Head{}, ErrInvalid},
		{"a frame that is too large", `{"type":"` + strings.Repeat("x", MaxFrameBytes) + `"}`, Head{}, ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Peek([]byte(c.in))
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestDecodeValidates(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		name string
		in   any
		into any
		ok   bool
	}{
		{"a send", Send{TargetSpec: "*", Priority: "now"}, &Send{}, true},
		{"a send without a target", Send{Priority: "now"}, &Send{}, false},
		{"a send with a priority of its own", Send{TargetSpec: "*", Priority: "soon"}, &Send{}, false},
		{"a send with a long id", Send{TargetSpec: "*", Priority: "low", ClientMessageID: long}, &Send{}, false},
		{"a send with a long target", Send{TargetSpec: "@" + long, Priority: "low"}, &Send{}, false},
		{"a hello", Hello{MeshID: "m", SessionID: "s"}, &Hello{}, true},
		{"a hello without a session id", Hello{MeshID: "m"}, &Hello{}, false},
		{"a hello with a long name", Hello{MeshID: "m", SessionID: "s", DisplayName: long}, &Hello{}, false},
		{"a hello with a nameless group", Hello{MeshID: "m", SessionID: "s", Groups: []mesh.Group{{Role: "lead"}}}, &Hello{}, false},
		{"a hello with too many groups", Hello{MeshID: "m", SessionID: "s", Groups: make([]mesh.Group, MaxGroups+1)}, &Hello{}, false},
		{"a session hello", SessionHello{MeshID: "m", SessionID: "s"}, &SessionHello{}, true},
		{"a session hello with a long role", SessionHello{MeshID: "m", SessionID: "s", Role: long}, &SessionHello{}, false},
		{"an acknowledgement as the reference sends it", ClientAck{ClientMessageID: "c"}, &ClientAck{}, true},
		{"an acknowledgement of nothing", ClientAck{}, &ClientAck{}, false},
		{"an acknowledgement with a state of its own", ClientAck{ClientMessageID: "c", State: "eaten"}, &ClientAck{}, false},
		{"a push with a long id", Push{MessageID: long}, &Push{}, false},
		{"a status", SetStatus{Status: "dnd"}, &SetStatus{}, true},
		{"a status of its own", SetStatus{Status: "bored"}, &SetStatus{}, false},
		{"a schedule", Schedule{To: "*", Message: "x"}, &Schedule{}, true},
		{"a sealed schedule", Schedule{To: "k", Nonce: "eHg=", Ciphertext: "eHg="}, &Schedule{}, true},
		{"a schedule without a text", Schedule{To: "*"}, &Schedule{}, false},
		{"a schedule with two", Schedule{To: "k", Message: "x", Nonce: "eHg=", Ciphertext: "eHg="}, &Schedule{}, false},
		{"a schedule with a long cron", Schedule{To: "*", Message: "x", Cron: long}, &Schedule{}, false},
		{"a cancellation of nothing", CancelScheduled{}, &CancelScheduled{}, false},
		{"a watch", Watch{URL: "https://example.com", Mode: "json", NotifyOn: "match:x"}, &Watch{}, true},
		{"a watch of nothing", Watch{}, &Watch{}, false},
		{"a watch with a mode of its own", Watch{URL: "x", Mode: "css"}, &Watch{}, false},
		{"a watch that tells never", Watch{URL: "x", NotifyOn: "never"}, &Watch{}, false},
		{"a watch once a week", Watch{URL: "x", Interval: 604800}, &Watch{}, false},
		{"an end of no watch", Unwatch{}, &Unwatch{}, false},
		{"a long summary", SetSummary{Summary: long}, &SetSummary{}, false},
		{"a group without a name", JoinGroup{}, &JoinGroup{}, false},
		{"a kick of nobody", Kick{}, &Kick{}, false},
		{"a kick of everybody", Kick{All: true}, &Kick{}, true},
		{"a kick of those who are silent for a week", Kick{Stale: 7 * 86_400_000}, &Kick{}, false},
		{"a kick with a long target", Kick{Target: long}, &Kick{}, false},
		{"a ban of nobody", Ban{}, &Ban{}, false},
		{"grants of nothing", GrantsSet{}, &GrantsSet{}, false},
		{"grants for what is no key", GrantsSet{Grants: Grants{"bob": {"dm"}}}, &GrantsSet{}, false},
		{"grants that are unknown", GrantsSet{Grants: Grants{strings.Repeat("a", 64): {"fly"}}}, &GrantsSet{}, false},
		{"grants named twice", GrantsSet{Grants: Grants{strings.Repeat("a", 64): {"dm", "dm"}}}, &GrantsSet{}, false},
		{"a block, and the end of one", GrantsSet{Grants: Grants{strings.Repeat("a", 64): {}, strings.Repeat("b", 64): nil}}, &GrantsSet{}, true},
		{"an edit of nobody", MemberEdit{}, &MemberEdit{}, false},
		{"an edit with a group that has no name", MemberEdit{MemberID: "m", Profile: Profile{Groups: &[]mesh.Group{{}}}}, &MemberEdit{}, false},
		{"an edit with a role tag that is a number", MemberEdit{MemberID: "m", Profile: Profile{RoleTag: json.RawMessage("7")}}, &MemberEdit{}, false},
		{"an edit with a long role tag", MemberEdit{MemberID: "m", Profile: Profile{RoleTag: json.RawMessage(`"` + long + `"`)}}, &MemberEdit{}, false},
		{"an edit without a role tag", MemberEdit{MemberID: "m", Profile: Profile{RoleTag: json.RawMessage("null")}}, &MemberEdit{}, true},
		{"settings of what cannot be set", MeshSettings{SelfEditable: map[string]bool{"permission": true}}, &MeshSettings{}, false},
		{"an invite for nobody", InviteCreate{Token: "t"}, &InviteCreate{}, false},
		{"an invite", InviteCreate{Token: "t", MaxUses: 1}, &InviteCreate{}, true},
		{"an invite that nobody signed", InviteCreate{MaxUses: 1, InviteID: "i", Role: "member"}, &InviteCreate{}, false},
		{"an invite by capability", InviteCreate{MaxUses: 1, InviteID: "i", Role: "member", SignatureV2: "s"}, &InviteCreate{}, true},
		{"an invite whose id has separators", InviteCreate{MaxUses: 1, InviteID: "i|j", Role: "member", SignatureV2: "s"}, &InviteCreate{}, false},
		{"an invite to a role of its own", InviteCreate{MaxUses: 1, InviteID: "i", Role: "king", SignatureV2: "s"}, &InviteCreate{}, false},
		{"the end of no invite", InviteRevoke{}, &InviteRevoke{}, false},
		{"a rename to nothing", MeshRename{}, &MeshRename{}, false},
		{"a rename", MeshRename{Slug: "s"}, &MeshRename{}, true},
		{"the end of no mesh", MeshDelete{}, &MeshDelete{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := json.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			err = Decode(data, c.into)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := Decode([]byte(`{"priority":7}`), &Send{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a field of the wrong type: %v", err)
	}
}

func TestWithRequestSetsTypeAndIDWhateverTheCallerPutThere(t *testing.T) {
	data, err := WithRequest("get_state", "r9", json.RawMessage(`{"type":"send","_reqId":"mine","key":"k"}`))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"type": "get_state", "_reqId": "r9", "key": "k"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := WithRequest("x", "r", json.RawMessage(`[1]`)); !errors.Is(err, ErrMalformed) {
		t.Errorf("fields that are no object: %v", err)
	}
}

func TestSignedHellosVerify(t *testing.T) {
	member := identity(t, "0101010101010101010101010101010101010101010101010101010101010101")
	session := identity(t, "0404040404040404040404040404040404040404040404040404040404040404")
	now := time.UnixMilli(1777898000000)
	h := SignHello(Hello{MeshID: "mesh0001", MemberID: "member01", SessionID: "s"}, member, now)
	// The signature is that of the reference's own vectors.
	const want = "c63583e970d3d04cf090584fdd04012f0fe39b0ba7c2c60315ab56e747a0c87f72eb46a826e9c77c41c3e51bc4d49b25031aa22d41b1248a2e25ad9fe461430d"
	if h.Type != TypeHello || h.Signature != want {
		t.Errorf("signature %s, want %s", h.Signature, want)
	}
	s := SignSessionHello(SessionHello{MeshID: "mesh0001", SessionID: "s"}, member, session, now, 12*time.Hour)
	const wantSession = "96733b01a52c64a5435fac1f893b11a93b625245cea59e4a8597f4fd8b697ae66fc268c69d3f529d8c737bbb59a4d356ea7b970f133c76f6c150ef124691cd0a"
	if s.Signature != wantSession {
		t.Errorf("signature %s, want %s", s.Signature, wantSession)
	}
	if err := s.ParentAttestation.Check(now); err != nil || s.ParentAttestation.SessionPubkey != session.PublicKey() {
		t.Errorf("attestation %+v: %v", s.ParentAttestation, err)
	}
}

func identity(t *testing.T, seed string) mesh.Identity {
	t.Helper()
	keys := map[byte]string{
		'1': "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
		'4': "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c",
	}
	id, err := mesh.IdentityFromSecret(seed + keys[seed[1]])
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Every recorded frame of the families served here must survive a round trip through our types with no field of the reference's lost.
func TestRecordedFramesKeepTheirFields(t *testing.T) {
	types := map[string]func() any{
		TypeHello: func() any { return &Hello{} }, TypeSessionHello: func() any { return &SessionHello{} }, TypeHelloAck: func() any { return &HelloAck{} },
		TypeError: func() any { return &Error{} }, TypeSend: func() any { return &Send{} }, TypeAck: func() any { return &Ack{} }, TypePush: func() any { return &Push{} },
		TypePeersList: func() any { return &PeersList{} }, TypeSetStatus: func() any { return &SetStatus{} }, TypeSetSummary: func() any { return &SetSummary{} },
		TypeJoinGroup: func() any { return &JoinGroup{} }, TypeLeaveGroup: func() any { return &LeaveGroup{} },
		TypeSchedule: func() any { return &Schedule{} }, TypeScheduledAck: func() any { return &ScheduledAck{} }, TypeScheduledList: func() any { return &ScheduledList{} },
		TypeCancelScheduled: func() any { return &CancelScheduled{} }, TypeCancelScheduledAck: func() any { return &CancelScheduledAck{} },
		TypeWatch: func() any { return &Watch{} }, TypeWatchAck: func() any { return &WatchAck{} }, TypeUnwatch: func() any { return &Unwatch{} },
		TypeWatchListResult: func() any { return &WatchListResult{} }, TypeCreateWebhook: func() any { return &Webhook{} }, TypeDeleteWebhook: func() any { return &Webhook{} },
		TypeWebhookAck: func() any { return &WebhookAck{} }, TypeWebhookList: func() any { return &WebhookList{} },
	}
	n := 0
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var line struct{ Frame json.RawMessage }
			if json.Unmarshal(lines.Bytes(), &line) != nil || len(line.Frame) == 0 {
				continue
			}
			head, err := Peek(line.Frame)
			if err != nil {
				t.Errorf("%s: %v: %s", file, err, line.Frame)
				continue
			}
			decoder, known := types[head.Type]
			if !known {
				continue
			}
			n++
			v := decoder()
			if err := Decode(line.Frame, v); err != nil {
				t.Errorf("%s: %v: %s", file, err, line.Frame)
				continue
			}
			again, err := Encode(v)
			if err != nil {
				t.Fatal(err)
			}
			var before, after map[string]any
			if err := errors.Join(json.Unmarshal(line.Frame, &before), json.Unmarshal(again, &after)); err != nil {
				t.Fatal(err)
			}
			for k, v := range before {
				if !reflect.DeepEqual(after[k], v) && !empty(v) {
					t.Errorf("%s: %s: %q was %v and is %v", file, head.Type, k, v, after[k])
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d recorded frames were looked at", n)
	}
}

// empty reports whether leaving a value out says the same.
func empty(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case bool:
		return !v
	}
	return v == nil
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"type":"send","targetSpec":"*","priority":"now","nonce":"","ciphertext":""}`, `{"type":"hello","groups":[{"name":"a"}]}`, `{"type":"push","eventData":{}}`, `{"type":"set_state","key":"k","value":{"a":["<"]}}`, `{"type":"remember","content":"c","tags":["t"]}`,
		`{"type":"share_skill","name":"n","description":"d","instructions":"i","manifest":null}`, `[`, `{"type":1}`,
		`{"type":"topic_rotate","topic":"t","generation":1,"keys":[{"memberId":"m","encryptedKey":"","nonce":""}]}`, `{"type":"topic_create","name":"n","key":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Peek(data); err != nil {
			return
		}
		for _, v := range []any{
			&Hello{}, &SessionHello{}, &Send{}, &Push{}, &ClientAck{}, &Receipt{}, &PeersList{}, &HelloAck{}, &JoinGroup{}, &InviteCreate{}, &InviteRevoke{}, &Invites{}, &MeshRename{}, &MeshDelete{},
			&VaultSet{}, &VaultGet{}, &VaultKey{}, &VaultGetResult{}, &VaultListResult{}, &FileRef{}, &FileURL{}, &ListFiles{}, &FileList{}, &FileStatusResult{}, &GrantFileAccess{}, &FileDeleted{},
			&SetState{}, &GetState{}, &DeleteState{}, &ListState{}, &StateResult{}, &StateList{}, &StateChange{}, &Remember{}, &Recall{}, &Forget{}, &MemoryResults{},
			&ShareSkill{}, &GetSkill{}, &ListSkills{}, &RemoveSkill{}, &SkillData{}, &SkillList{}, &SkillChange{}, &MeshInfo{},
			&Kick{}, &Ban{}, &GrantsSet{}, &MemberEdit{}, &APIKeyCreate{}, &APIKeyRevoke{}, &MemberListResult{}, &GrantsResult{}, &KickAck{}, &ListBansResult{},
			&APIKeyListed{},
			&TopicCreate{}, &TopicCreated{}, &TopicList{}, &TopicJoin{}, &TopicLeave{}, &TopicRequest{}, &TopicMembers{}, &TopicHistory{}, &TopicHistoryPage{}, &TopicKey{},
			&TopicSeal{}, &TopicPending{}, &TopicRotate{}, &TopicEvent{},
			&SetProfile{}, &MessageStatus{}, &MessageStatusResult{}, &MeshSettings{}, &MeshSettingsResult{},
			&Schedule{}, &ScheduledList{}, &Watch{}, &WatchListResult{}, &Webhook{},
		} {
			if Decode(data, v) != nil {
				continue
			}
			out, err := Encode(v)
			if errors.Is(err, ErrTooLarge) {
				continue
			}
			if err != nil {
				t.Fatalf("decoded but not encodable: %v", err)
			}
			if err := Decode(out, v); err != nil {
				t.Fatalf("what was encoded does not decode: %v: %s", err, out)
			}
		}
	})
}
