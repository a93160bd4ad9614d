package broker

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// line is one line of a transcript.
type line struct {
	Dir   string          `json:"dir"`
	Conn  int             `json:"conn"`
	T     int64           `json:"t"`
	Frame json.RawMessage `json:"frame"`
	Raw   *string         `json:"raw"`
	Close *struct {
		Code   int    `json:"code"`
		Reason string `json:"reason"`
	} `json:"close"`
	HTTP *struct {
		Method string          `json:"method"`
		Path   string          `json:"path"`
		Body   json.RawMessage `json:"body"`
		Status int             `json:"status"`
	} `json:"http"`
}

// Where this broker answers differently, on purpose: by the name of the transcript, the id of the message (or request) whose frames are left out.
var otherwise = map[string][]string{
	// A member id that is not that of the key is refused (53); hello_test.go has the case.
	"hello_wrong_member_id": {"not-my-id", "w5CVeDk5ZivBAHbknAHq7dfwE540AkqN"},
	// What other recordings had stored.
	"presence_profile": {"mesh_info-2"},
	// The reference hands a message for a member's key to any of its sessions; here it waits for a member connection.
	"session_hello": {"95b4a0fd-73d0-4af8-805c-8d4441c22508push"},
	// Files that a peer serves from its own disk are not served.
	"files": {"peer_file_request-7", "peer_file_request-8"},
	// Mail that waited from another recording.
	"state": {"9fe4d769-1b11-41a4-9460-8acab98904e0push", "1baf0fc3-8d7f-4485-9c6d-5d4c560423f8push", "6b5be8a1-9a37-456c-856c-4f68d3c52239push"},
	// Only the author or an admin may remove a skill (defect 43).
	"skill": {"remove_skill-5", "remove_skill-6"},
	// Reminders are the broker's (69): the creator's connection gets no acks for them, and may remind itself. They are sent in the order of their times, the
	// direct one first; the reference sends the broadcast first.
	"schedule": {"601dc811-1007-423e-9656-53a942490b99", "fd98be6d-a7ca-47f4-a20e-f15ce6fdf979", "NuJez5A3JP0tfVOnHo1MeVaHCGNsM2cNpush", "schedule-11", "7b4369b6-f86a-4811-b900-c9d9da310c68"},
	// A second webhook of a name is refused with an answer (85a); lists show no secrets (43).
	"webhook": {"create_webhook-2", "list_webhooks-3"},
	// A member that is offline has a mailbox here.
	"dm_offline_target": {"f61170f9-7114-4c8e-b7bb-bf7fb337889a"},
	// The sentence of the refusal ("only owner or admin can kicked").
	"kick_ban": {"kick-1"},
}

// HTTP requests that this broker answers differently, on purpose: what it answers instead.
var otherwiseHTTP = map[string]struct {
	status int
	body   string
}{
	// 62: a claim works, and asks for the member's own key, without which it never could.
	"POST /invites/abcd/claim": {400, `{"error":"malformed"}`},
	// 39: the list of members is for members.
	"GET /mesh/psJ3tL043OjGeQrXMeoyCwFMQaG80YtR/members": {401, `{"ok":false,"error":"missing_authorization"}`},
	// 50: bytes are for members, who sign their requests; the reference asks for the token of an account.
	"POST /upload": {401, `{"ok":false,"error":"missing_authorization"}`},
	"GET /download/nope?mesh=psJ3tL043OjGeQrXMeoyCwFMQaG80YtR": {401, `{"ok":false,"error":"missing_authorization"}`},
}

// Members that had another name when these were recorded.
var renamed = map[string]map[string]string{
	"topic":    {"b4227c61c4b38fd6f1d92739c27ed619edfc105bca4aa762f5ca86792597841f": "vm-2295"},
	"kick_ban": {"92e6db7352f935eda1ab363dd564af0a7904d4e8c6fde71186a5f9b507210669": "carol0"},
}

// Pushes that come later here, on purpose: by the name of the transcript, the id of the message and the frame of the recipient after which it comes.
var deferred = map[string]map[string]string{
	// A status that was set by hand is not forgotten at the next message (14), and what it holds back comes when it ends (13).
	"dm_status_gating": {"c9a3f939-94de-47eb-a2ff-00779bf3bb6a": `"status":"idle"`},
}

// Pushes that come to one more connection here: by the name of the transcript, the nonce of the message and the number of the connection.
var further = map[string]map[string]int{
	// A message to a group reaches the groups below it, too (7).
	"group": {"MtwndSMy9zK48CJA7bU7slzTg4RqWNA3": 27},
}

// Answers and pushes that come in the order of the sends here; the reference deals with the frames of one socket side by side (18).
var scrambled = map[string]bool{"rate_limit": true}

// How the broker of a transcript was set up.
var setups = map[string]func(*Config){
	"rate_limit":      func(c *Config) { c.Limits.SendRate, c.Limits.SendBurst = 60, 10 },
	"hook_set_status": func(c *Config) { c.AllowHook = true },
}

// Values that differ in every run; their presence is compared.
var volatile = map[string]bool{
	"presenceId": true, "presence_id": true, "deliveredAt": true, "lastSeenAt": true, "createdAt": true, "updatedAt": true, "updated_at": true, "rememberedAt": true, "connectedAt": true,
	"memberId": true, "joinedAt": true, "revokedAt": true, "lastReadAt": true, "uptime": true, "version": true, "gitSha": true,
	// What a watch finds, and when.
	"oldValue": true, "newValue": true, "lastHash": true, "lastValue": true, "lastCheck": true,
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.jsonl")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".jsonl"), func(t *testing.T) { replay(t, file) })
	}
}

func replay(t *testing.T, file string) {
	name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
	lines := later(readTranscript(t, file), deferred[name])
	lines = alsoTo(lines, further[name])
	if scrambled[name] {
		inOrder(lines, wire.TypeAck)
		inOrder(lines, wire.TypePush)
	}
	skip := otherwise[name]
	clock := clockwork.NewFakeClockAt(time.UnixMilli(lines[0].T))
	recorded := fixtures(t, clock)
	r := newRig(t, func(c *Config) {
		c.Clock, c.AllowPrivateWatches, c.PublicURL = clock, true, "ws"+strings.TrimPrefix(recorded, "http")+"/ws"
		if setup := setups[name]; setup != nil {
			setup(c)
		}
	})
	r.recordedMesh(lines)
	for key, name := range renamed[name] {
		r.broker.meshes[r.mesh.ID].members[key].Name = name
	}
	p := &player{t: t, r: r, posts: strings.HasPrefix(name, "topic"), clients: map[int]*client{}, ids: map[string]string{}, closed: map[int]bool{}}
	for i, l := range lines {
		if skipped(l, skip) {
			continue
		}
		if d := time.UnixMilli(l.T).Sub(clock.Now()); d > 0 {
			clock.Advance(d)
		}
		where := fmt.Sprintf("line %d", i+1)
		l = p.relocate(l, recorded)
		switch {
		case l.HTTP != nil:
			p.http(where, l)
		case l.Dir == "c2s":
			p.say(l)
		case l.Close != nil && !p.closed[l.Conn]:
			if code, reason := p.clients[l.Conn].closed(); code != l.Close.Code || reason != l.Close.Reason {
				t.Fatalf("%s: closed with %d %q, recorded %d %q", where, code, reason, l.Close.Code, l.Close.Reason)
			}
		case l.Frame != nil:
			p.hear(where, l)
		}
	}
}

// fixtures serves what the recorded broker served for watches, and returns its address.
func fixtures(t *testing.T, clock clockwork.Clock) string {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /test/clock", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"epoch":%d}`, clock.Now().UnixMilli()) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// relocate puts our address in the place of the recorded broker's, and in paths our secrets in the place of the recorded ones.
func (p *player) relocate(l line, base string) line {
	l.Frame = bytes.ReplaceAll(l.Frame, []byte("http://127.0.0.1:7900"), []byte(base))
	if l.HTTP != nil {
		h := *l.HTTP
		for theirs, ours := range p.ids {
			h.Path = strings.ReplaceAll(h.Path, theirs, ours)
		}
		l.HTTP = &h
	}
	return l
}

// later moves pushes behind the frames after which they come here.
func later(lines []line, after map[string]string) []line {
	for id, frame := range after {
		from := slices.IndexFunc(lines, func(l line) bool {
			return l.Dir == "s2c" && strings.Contains(string(l.Frame), `"type":"push"`) && strings.Contains(string(l.Frame), id)
		})
		to := slices.IndexFunc(lines, func(l line) bool { return strings.Contains(string(l.Frame), frame) && l.Dir == "c2s" })
		moved := lines[from]
		moved.T = lines[to].T
		lines = slices.Insert(slices.Delete(lines, from, from+1), to, moved)
	}
	return lines
}

// alsoTo repeats pushes for further connections.
func alsoTo(lines []line, conns map[string]int) []line {
	for nonce, conn := range conns {
		i := slices.IndexFunc(lines, func(l line) bool {
			return strings.Contains(string(l.Frame), `"type":"push"`) && strings.Contains(string(l.Frame), nonce)
		})
		more := lines[i]
		more.Conn = conn
		lines = slices.Insert(lines, i+1, more)
	}
	return lines
}

// inOrder sorts the frames of that type that concern sends, among their own places, by the order of the sends.
func inOrder(lines []line, frameType string) {
	type ids struct {
		Type, ID, Subtype string
		ClientMessageID   string `json:"client_message_id"`
	}
	turn := map[string]int{}
	var places []int
	var frames []line
	of := func(l line) (f ids) {
		_ = json.Unmarshal(l.Frame, &f) // not every line has a frame
		f.ID = cmp.Or(f.ClientMessageID, f.ID)
		return f
	}
	for i, l := range lines {
		switch f := of(l); {
		case f.Type == wire.TypeSend:
			turn[f.ID] = i
		case f.Type == frameType && f.Subtype == "":
			places, frames = append(places, i), append(frames, l)
		}
	}
	slices.SortStableFunc(frames, func(a, b line) int { return cmp.Compare(turn[of(a).ID], turn[of(b).ID]) })
	for i, at := range places {
		lines[at].Frame = frames[i].Frame
	}
}

func readTranscript(t *testing.T, file string) (lines []line) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var l line
		if len(sc.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Dir != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

func skipped(l line, ids []string) bool {
	for _, id := range ids {
		if push, ok := strings.CutSuffix(id, "push"); ok {
			if strings.Contains(string(l.Frame), push) && strings.Contains(string(l.Frame), `"type":"push"`) {
				return true
			}
		} else if strings.Contains(string(l.Frame), `"`+id+`"`) {
			return true
		}
	}
	return false
}

// recordedMesh sets up the recorded mesh in the state in which its members come: as the first hello_ack of each says.
func (r *rig) recordedMesh(lines []line) {
	r.t.Helper()
	var rec struct {
		MeshID, Slug, InviteToken string
		Members                   []memberRecord
	}
	data, err := os.ReadFile("testdata/transcripts/mesh.json")
	if err == nil {
		err = json.Unmarshal(data, &rec)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := r.broker.addMesh(r.t.Context(), meshRecord{ID: rec.MeshID, Slug: rec.Slug, Name: rec.Slug, OwnerPubkey: rec.Members[0].Pubkey}, rec.Members...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mesh = info
	in, token, err := mesh.ParseInvite(rec.InviteToken)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.broker.store.put(r.t.Context(), inviteKey(in.MeshID, tokenHash(token)), inviteRecord{MeshID: in.MeshID, Role: in.Role, Expires: in.ExpiresAt, MaxUses: 10}); err != nil {
		r.t.Fatal(err)
	}
	members := r.broker.meshes[info.ID].members
	who := map[int]string{}
	seen := map[string]bool{}
	for _, l := range lines {
		var h wire.Hello
		var ack wire.HelloAck
		_ = json.Unmarshal(l.Frame, &h) // a frame that is no hello has another type
		_ = json.Unmarshal(l.Frame, &ack)
		switch {
		case h.Type == wire.TypeHello:
			who[l.Conn] = h.Pubkey
		case ack.Type == wire.TypeHelloAck && members[who[l.Conn]] != nil && !seen[who[l.Conn]]:
			seen[who[l.Conn]] = true
			st := &members[who[l.Conn]].state
			if at, err := time.Parse(wire.TimeFormat, ack.LastSeenAt); err == nil {
				st.LastSeen = at.UnixMilli()
			}
			st.Summary, st.Groups = ack.LastSummary, ack.RestoredGroups
			if ack.RestoredStats != nil {
				st.Stats = *ack.RestoredStats
			}
		case strings.Contains(string(l.Frame), `"set_profile"`):
			return // what is listed from here on was set in the recording
		case strings.Contains(string(l.Frame), `"profile":{`):
			var list wire.PeersList
			_ = json.Unmarshal(l.Frame, &list)
			for _, p := range list.Peers {
				members[p.MemberPubkey].state.Profile = p.Profile
			}
		}
	}
}

// player plays the clients of a transcript.
type player struct {
	t       *testing.T
	r       *rig
	posts   bool // it is about topics
	clients map[int]*client
	closed  map[int]bool
	ids     map[string]string // recorded message ids to ours
	request string            // the last HTTP request
	answer  []byte            // to it
	status  int
}

func (p *player) say(l line) {
	p.t.Helper()
	c := p.clients[l.Conn]
	if c == nil {
		c = p.r.dial()
		p.clients[l.Conn] = c
	}
	switch {
	case l.Close != nil:
		p.closed[l.Conn] = true
		c.close()
	case l.Raw != nil:
		c.write([]byte(*l.Raw))
	default:
		h, _ := wire.Peek(l.Frame)
		l.Frame = p.translate(l.Frame)
		if h.Type == wire.TypeMessageStatus {
			p.r.noMail() // the recording was not in a hurry
			l.Frame = p.asked(l.Frame)
		}
		c.write([]byte(l.Frame))
		if strings.HasPrefix(h.Type, "set_") || strings.HasSuffix(h.Type, "_group") || unansweredTopics[h.Type] {
			c.settle() // the recording waited a moment instead
		} else if h.Type == wire.TypeWatch {
			c.settle()
			p.r.watchesChecked()
		}
	}
}

// recorded fits what can be the frame recorded at this place. The reference acknowledges some requests about topics with silence, and pushes no post of a
// topic when it is made (5); both come here. In what was recorded of topics, posts and messages lie in different mailboxes, and either may come first.
func (p *player) recorded(frame []byte) func(wire.Head, []byte) bool {
	type push struct {
		Type   string `json:"type"`
		ID     string `json:"client_message_id"`
		Target string `json:"targetSpec"`
	}
	var want push
	if err := json.Unmarshal(frame, &want); err != nil {
		p.t.Fatal(err)
	}
	return func(h wire.Head, data []byte) bool {
		var got push
		if h.Type == wire.TypePush && json.Unmarshal(data, &got) == nil && (strings.HasPrefix(got.Target, "#") || p.posts && want.Type == wire.TypePush) {
			return want.Type == wire.TypePush && got.ID == want.ID
		}
		return h.Type != wire.TypeAck || !strings.HasPrefix(h.ReqID, "topic_")
	}
}

// unansweredTopics are the requests about topics to which the reference says nothing, and which are acknowledged here.
var unansweredTopics = map[string]bool{wire.TypeTopicJoin: true, wire.TypeTopicLeave: true, wire.TypeTopicMarkRead: true}

// asked is a message_status with our id in place of the recorded one, or as much of it.
func (p *player) asked(frame []byte) []byte {
	var f wire.MessageStatus
	if err := json.Unmarshal(frame, &f); err != nil {
		p.t.Fatal(err)
	}
	for theirs, ours := range p.ids {
		if n := len(f.MessageID); strings.HasPrefix(theirs, f.MessageID) && len(ours) >= n {
			f.MessageID = ours[:n]
			break
		}
	}
	return mustJSON(p.t, f)
}

// hear takes the next frame of the connection and compares it.
func (p *player) hear(where string, l line) {
	p.t.Helper()
	c := p.clients[l.Conn]
	data := c.next(p.recorded(l.Frame))
	var want, got map[string]any
	if err := json.Unmarshal(l.Frame, &want); err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(data, &got); err != nil {
		p.t.Fatal(err)
	}
	p.learn(where, want, got)
	if diff := compare("", want, got); diff != "" {
		p.t.Errorf("%s: %s\ngot      %s\nrecorded %s", where, diff, data, l.Frame)
	}
}

// minted are the fields whose values the broker makes up. A recorded one is known from then on as ours, in what is compared and in what is sent.
var minted = map[string]bool{
	"messageId": true, "id": true, "callId": true, "fileId": true, "memoryId": true, "scheduledId": true, "watchId": true, "secret": true, "url": true, "prefix": true,
}

// learn replaces the minted values of want by those of got, wherever they stand, and remembers them.
func (p *player) learn(where string, want, got any) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range w {
			theirs, isText := v.(string)
			ours, alsoText := g[k].(string)
			if !isText || !alsoText || !minted[k] || theirs == "" || ours == "" || theirs == ours {
				p.learn(where, v, g[k])
				if ours, known := p.ids[theirs]; known && isText && !minted[k] {
					w[k] = ours // it refers to one
				}
				continue
			}
			if known, ok := p.ids[theirs]; ok && known != ours && w["subtype"] == nil {
				p.t.Errorf("%s: %s %s was %s before", where, k, ours, known)
			}
			p.ids[theirs] = ours
			w[k] = ours
		}
	case []any:
		g, _ := got.([]any)
		for i := range min(len(w), len(g)) {
			p.learn(where, w[i], g[i])
		}
	}
}

// translate puts our ids in the place of the recorded ones.
func (p *player) translate(frame []byte) []byte {
	text := string(frame)
	for theirs, ours := range p.ids {
		text = strings.ReplaceAll(text, `"`+theirs+`"`, `"`+ours+`"`)
		if len(theirs) == idLength { // or the beginning of one
			text = strings.ReplaceAll(text, `"`+theirs[:8]+`"`, `"`+ours[:8]+`"`)
		}
		text = strings.ReplaceAll(text, `"#`+theirs+`"`, `"#`+ours+`"`)
	}
	return []byte(text)
}

func (p *player) http(where string, l line) {
	p.t.Helper()
	if l.Dir == "c2s" {
		body := []byte(l.HTTP.Body)
		if text := ""; json.Unmarshal(body, &text) == nil { // it was not JSON
			body = []byte(text)
		}
		req, err := http.NewRequest(l.HTTP.Method, p.r.http.URL+l.HTTP.Path, bytes.NewReader(body))
		if err != nil {
			p.t.Fatal(err)
		}
		res, err := p.r.http.Client().Do(req)
		if err != nil {
			p.t.Fatal(err)
		}
		defer res.Body.Close()
		if p.answer, err = io.ReadAll(res.Body); err != nil {
			p.t.Fatal(err)
		}
		p.request, p.status = l.HTTP.Method+" "+l.HTTP.Path, res.StatusCode
		return
	}
	want := l.HTTP
	if o, ok := otherwiseHTTP[p.request]; ok {
		want.Status, want.Body = o.status, json.RawMessage(o.body)
	}
	var recorded, got any
	if err := json.Unmarshal(want.Body, &recorded); err != nil {
		p.t.Fatal(err)
	}
	if json.Unmarshal(p.answer, &got) != nil {
		got = string(p.answer)
	}
	if diff := compare("", recorded, got); diff != "" || p.status != want.Status {
		p.t.Errorf("%s: %s %s\ngot      %d %s\nrecorded %d %s", where, p.request, diff, p.status, p.answer, want.Status, want.Body)
	}
}

// compare reports the first thing that was recorded and is not in got. More fields than recorded are fine: that is how the protocol grows.
func compare(path string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return path + " is not an object"
		}
		for k, v := range w {
			o, ok := g[k]
			if !ok {
				return fmt.Sprintf("%s.%s is missing", path, k)
			}
			if volatile[k] {
				continue
			}
			if diff := compare(path+"."+k, v, o); diff != "" {
				return diff
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s has not %d elements", path, len(w))
		}
		for i := range w {
			if diff := compare(fmt.Sprintf("%s[%d]", path, i), w[i], g[i]); diff != "" {
				return diff
			}
		}
	default:
		if !reflect.DeepEqual(want, got) {
			return fmt.Sprintf("%s is %v, recorded %v", path, got, want)
		}
	}
	return ""
}
