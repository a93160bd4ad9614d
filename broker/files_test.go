package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// upload is one POST /upload of a member.
type upload struct {
	who    mesh.Identity
	body   []byte
	header map[string]string
	signed []byte    // the bytes that the signature is for, if others than body
	stream io.Reader // instead of body
	auth   string    // instead of a signature
}

func (r *rig) upload(u upload) (status int, reply wire.UploadReply, auth string) {
	r.t.Helper()
	body := u.stream
	if body == nil {
		body = bytes.NewReader(u.body)
	}
	if u.signed == nil {
		u.signed = u.body
	}
	sum := sha256.Sum256(u.signed)
	if u.auth == "" {
		// Two equal requests in one millisecond would have one signature.
		at := r.now().Add(time.Duration(r.signed.Add(1)) * time.Millisecond)
		u.auth = mesh.SignHTTP(u.who, http.MethodPost, "/upload", r.mesh.ID, hex.EncodeToString(sum[:]), at)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.http.URL+"/upload", body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", u.auth)
	req.Header.Set("Expect", "100-continue")
	req.Header.Set(wire.HeaderFileName, "plan.txt")
	for k, v := range u.header {
		req.Header.Set(k, v)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: patience}}
	res, err := client.Do(req)
	if err != nil {
		return 0, wire.UploadReply{Error: err.Error()}, u.auth
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&reply); err != nil {
		r.t.Fatal(res.StatusCode, err)
	}
	return res.StatusCode, reply, u.auth
}

func (r *rig) mustUpload(u upload) string {
	r.t.Helper()
	status, reply, _ := r.upload(u)
	if status != http.StatusOK || !reply.OK || !validID(reply.FileID) {
		r.t.Fatalf("%d %+v", status, reply)
	}
	return reply.FileID
}

// fetch gets a URL that get_file gave.
func (r *rig) fetchURL(url string) (int, string, http.Header) {
	r.t.Helper()
	rest, ok := strings.CutPrefix(url, "http://127.0.0.1:1")
	if !ok {
		r.t.Fatalf("%q is not below the public url", url)
	}
	return r.get(rest, "")
}

func (r *rig) get(target, auth string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.http.URL+target, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(data), res.Header
}

// stored counts what lies in the object store.
func (r *rig) stored() uint64 {
	r.t.Helper()
	info, err := r.broker.files.stream.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return info.State.Msgs
}

func ref(id string) map[string]any { return map[string]any{"fileId": id} }

func (c *client) files(fields map[string]any) []wire.FileInfo {
	c.t.Helper()
	return into[wire.FileList](c, c.call(wire.TypeListFiles, fields)).Files
}

// notServed checks that an answer is an error of that code.
func (c *client) notServed(code, message string, data []byte) {
	c.t.Helper()
	if e := into[wire.Error](c, data); e.Type != wire.TypeError || e.Code != code || !strings.Contains(e.Message, message) {
		c.t.Errorf("got %s, want %s %s", data, code, message)
	}
}

func TestAFileGoesAround(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	body := bytes.Repeat([]byte("0123456789abcdef"), 40_000) // three chunks
	id := r.mustUpload(upload{who: r.owner, body: body, header: map[string]string{wire.HeaderFileName: "Pläne 1.txt", wire.HeaderTags: `["x","y"]`}})

	list := b.files(nil)
	if len(list) != 1 || list[0].ID != id || list[0].Name != "Pläne 1.txt" || list[0].Size != int64(len(body)) || !list[0].Persistent || list[0].Encrypted ||
		list[0].UploadedBy != r.memberID(r.owner) || strings.Join(list[0].Tags, " ") != "x y" {
		t.Fatalf("%+v", list)
	}
	for query, want := range map[string]int{"pLÄ": 1, "nothing": 0} {
		if got := b.files(map[string]any{"query": query}); len(got) != want {
			t.Errorf("%s: %v", query, got)
		}
	}
	if got := b.files(map[string]any{"from": r.memberID(bob)}); len(got) != 0 {
		t.Error(got)
	}
	got := into[wire.FileURL](b, b.call(wire.TypeGetFile, ref(id)))
	if got.Type != wire.TypeFileURL || got.Name != "Pläne 1.txt" || got.Encrypted || got.Size != int64(len(body)) {
		t.Fatalf("%+v", got)
	}
	t.Run("the url works once, for nobody a second time", func(t *testing.T) {
		status, data, h := r.fetchURL(got.URL)
		if status != http.StatusOK || data != string(body) || h.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
			t.Errorf("%d %d bytes %v", status, len(data), h)
		}
		if status, _, _ := r.fetchURL(got.URL); status != http.StatusNotFound {
			t.Error(status)
		}
		if status, _, _ := r.fetchURL(strings.TrimSuffix(got.URL, got.URL[len(got.URL)-4:]) + "AAAA"); status != http.StatusNotFound {
			t.Error(status)
		}
	})
	t.Run("the status says who had it, here and in no other mesh", func(t *testing.T) {
		got := into[wire.FileStatusResult](a, a.call(wire.TypeFileStatus, ref(id)))
		if len(got.Accesses) != 1 || got.Accesses[0].PeerName != "bob" || got.Accesses[0].AccessedAt == "" {
			t.Errorf("%+v", got)
		}
		other, err := r.broker.CreateMesh(t.Context(), "Other", r.owner.PublicKey(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		c := r.dial()
		c.write(r.helloFrame(r.owner, func(h *wire.Hello) { h.MeshID, h.MemberID = other.ID, other.MemberID }))
		c.wait(wire.TypeHelloAck)
		if got := into[wire.FileStatusResult](c, c.call(wire.TypeFileStatus, ref(id))); len(got.Accesses) != 0 {
			t.Errorf("%+v", got)
		}
		c.notServed(wire.CodeNotFound, "file not found", c.call(wire.TypeGetFile, ref(id)))
	})
	t.Run("a member may sign the download instead", func(t *testing.T) {
		empty := sha256.Sum256(nil)
		sign := func(who mesh.Identity, target string) string {
			return mesh.SignHTTP(who, http.MethodGet, target, r.mesh.ID, hex.EncodeToString(empty[:]), r.now())
		}
		target := "/download/" + id + "?mesh=" + r.mesh.ID
		if status, data, _ := r.get(target, sign(bob, target)); status != http.StatusOK || data != string(body) {
			t.Error(status)
		}
		if got := into[wire.FileStatusResult](a, a.call(wire.TypeFileStatus, ref(id))); len(got.Accesses) != 1 {
			t.Errorf("a download after get_file counts once: %+v", got)
		}
		if status, _, _ := r.get(target, sign(r.owner, target)); status != http.StatusOK {
			t.Error(status)
		}
		if got := into[wire.FileStatusResult](a, a.call(wire.TypeFileStatus, ref(id))); len(got.Accesses) != 2 || got.Accesses[0].PeerName != "alice" {
			t.Errorf("a download without get_file counts, too: %+v", got)
		}
		if status, _, _ := r.get(target, ""); status != http.StatusUnauthorized {
			t.Error(status)
		}
		if status, _, _ := r.get(target, sign(newIdentity(t), target)); status != http.StatusUnauthorized {
			t.Error(status)
		}
		elsewhere := "/download/" + id + "?mesh=other"
		if status, _, _ := r.get(elsewhere, sign(bob, elsewhere)); status != http.StatusForbidden {
			t.Error(status)
		}
		none := "/download/nope"
		if status, _, _ := r.get(none, sign(bob, none)); status != http.StatusNotFound {
			t.Error(status)
		}
	})
	t.Run("only its owner or an administrator deletes it, and then nothing of it is left", func(t *testing.T) {
		carol := r.addMember("carol")
		c := r.member(carol)
		mine := r.mustUpload(upload{who: carol, body: []byte("x")})
		b.notServed(wire.CodeForbidden, "", b.call(wire.TypeDeleteFile, ref(id)))
		if got := into[wire.FileDeleted](c, c.call(wire.TypeDeleteFile, ref(mine))); got.Found == nil || !*got.Found || got.MessageID != mine {
			t.Errorf("%+v", got)
		}
		theirs := r.mustUpload(upload{who: carol, body: []byte("x")})
		for _, gone := range []string{id, theirs} {
			if got := into[wire.FileDeleted](a, a.call(wire.TypeDeleteFile, ref(gone))); got.Found == nil || !*got.Found {
				t.Errorf("%+v", got)
			}
			b.notServed(wire.CodeNotFound, "file not found", b.call(wire.TypeGetFile, ref(gone)))
		}
		if got := into[wire.FileDeleted](a, a.call(wire.TypeDeleteFile, ref(id))); got.Found == nil || *got.Found {
			t.Errorf("%+v", got)
		}
		if n := r.stored(); n != 0 || len(b.files(nil)) != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

func TestWhoGetsAFile(t *testing.T) {
	r := newRig(t)
	bob, carol, key := r.addMember("bob"), r.addMember("carol"), newIdentity(t)
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)
	s := r.session(bob, key)
	forBob := r.mustUpload(upload{who: r.owner, body: []byte("sealed"), header: map[string]string{
		wire.HeaderEncrypted: "true", wire.HeaderTargetSpec: bob.PublicKey(), wire.HeaderOwnerPubkey: r.owner.PublicKey(),
		wire.HeaderFileKeys: string(mustJSON(t, []wire.FileKey{{PeerPubkey: bob.PublicKey(), SealedKey: "for bob"}, {PeerPubkey: r.owner.PublicKey(), SealedKey: "for alice"}})),
	}})
	forAll := r.mustUpload(upload{who: r.owner, body: []byte("sealed"), header: map[string]string{
		wire.HeaderEncrypted: "true", wire.HeaderTargetSpec: "*",
		wire.HeaderFileKeys: string(mustJSON(t, []wire.FileKey{{PeerPubkey: key.PublicKey(), SealedKey: "for the session"}})),
	}})
	forSession := r.mustUpload(upload{who: r.owner, body: []byte("clear"), header: map[string]string{wire.HeaderTargetSpec: key.PublicKey()}})

	sealed := func(c *client, id string) string {
		t.Helper()
		got := into[wire.FileURL](c, c.call(wire.TypeGetFile, ref(id)))
		if got.Type != wire.TypeFileURL {
			t.Errorf("refused: %+v", got)
		}
		return got.SealedKey
	}
	t.Run("its target, and the owner, each with the key sealed for it", func(t *testing.T) {
		if sealed(b, forBob) != "for bob" || sealed(a, forBob) != "for alice" || sealed(s, forBob) != "for bob" {
			t.Error("wrong keys")
		}
	})
	t.Run("nobody else, in the list neither", func(t *testing.T) {
		c.notServed(wire.CodeForbidden, "file not targeted at you", c.call(wire.TypeGetFile, ref(forBob)))
		c.notServed(wire.CodeForbidden, "file not targeted at you", c.call(wire.TypeGetFile, ref(forSession)))
		if got := c.files(nil); len(got) != 1 || got[0].ID != forAll {
			t.Errorf("%+v", got)
		}
		if got := len(b.files(nil)); got != 3 {
			t.Errorf("bob sees %d", got)
		}
		if got := into[wire.FileStatusResult](c, c.call(wire.TypeFileStatus, ref(forBob))); len(got.Accesses) != 0 {
			t.Errorf("%+v", got)
		}
		target := "/download/" + forBob
		empty := sha256.Sum256(nil)
		if status, _, _ := r.get(target, mesh.SignHTTP(carol, http.MethodGet, target, r.mesh.ID, hex.EncodeToString(empty[:]), r.now())); status != http.StatusForbidden {
			t.Error(status)
		}
	})
	t.Run("without a key nobody but the owner", func(t *testing.T) {
		c.notServed(wire.CodeForbidden, "no decryption key for this file", c.call(wire.TypeGetFile, ref(forAll)))
		if sealed(a, forAll) != "" || sealed(s, forAll) != "for the session" {
			t.Error("wrong keys")
		}
	})
	grant := func(id string, to mesh.Identity) map[string]any {
		return map[string]any{"fileId": id, "peerPubkey": to.PublicKey(), "sealedKey": "granted"}
	}
	t.Run("only the owner grants, and a grant opens a targeted file", func(t *testing.T) {
		b.notServed(wire.CodeForbidden, "only the file owner can grant access", b.call(wire.TypeGrantFileAccess, grant(forBob, carol)))
		c.notServed(wire.CodeNotFound, "", c.call(wire.TypeGrantFileAccess, grant(forBob, carol)))
		a.notServed(wire.CodeInvalid, "", a.call(wire.TypeGrantFileAccess, map[string]any{"fileId": forBob, "peerPubkey": "carol", "sealedKey": "x"}))
		for range 2 {
			if got := into[wire.FileAccessOK](a, a.call(wire.TypeGrantFileAccess, grant(forBob, carol))); got.Type != wire.TypeFileAccessOK || got.PeerPubkey != carol.PublicKey() {
				t.Errorf("%+v", got)
			}
		}
		if sealed(c, forBob) != "granted" || len(c.files(nil)) != 2 {
			t.Error("no access")
		}
	})
	t.Run("a ticket of a member that was banned meanwhile is worth nothing", func(t *testing.T) {
		got := into[wire.FileURL](c, c.call(wire.TypeGetFile, ref(forBob)))
		if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, carol.PublicKey()); err != nil {
			t.Fatal(err)
		}
		if status, _, _ := r.fetchURL(got.URL); status != http.StatusForbidden {
			t.Error(status)
		}
	})
}

func TestUploadsThatAreRefused(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	c := r.member(bob)
	over := make([]byte, mesh.MaxSealedFile+1)
	tests := []struct {
		name   string
		upload upload
		status int
		says   string
	}{
		{"no bytes", upload{who: bob}, 400, "empty body"},
		{"no bytes, of unknown length", upload{who: bob, stream: io.MultiReader()}, 400, "empty body"},
		{"one byte too many", upload{who: bob, body: over}, 413, "file too large"},
		{"one byte too many, of unknown length", upload{who: bob, body: over, stream: io.MultiReader(bytes.NewReader(over))}, 413, "file too large"},
		{"other bytes than were signed", upload{who: bob, body: []byte("x"), signed: []byte("y")}, 401, "bad_signature"},
		{"another mesh", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderMeshID: "other"}}, 403, "another mesh"},
		{"another member", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderMemberID: r.memberID(r.owner)}}, 403, "another member"},
		{"no name", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderFileName: ""}}, 400, "X-File-Name required"},
		{"a way out", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderFileName: "../x"}}, 400, "file name"},
		{"a display name as target", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderTargetSpec: "alice"}}, 400, "X-Target-Spec must be a public key"},
		{"tags that are none", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderTags: "a,b"}}, 400, "X-Tags"},
		{"keys that are none", upload{who: bob, body: []byte("x"), header: map[string]string{wire.HeaderFileKeys: "[{}]", wire.HeaderEncrypted: "true"}}, 400, "peerPubkey"},
		{"somebody who is no member", upload{who: newIdentity(t), body: []byte("x")}, 401, "unauthorized"},
		{"a bearer token", upload{auth: "Bearer x", body: []byte("x")}, 401, "malformed_authorization"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, reply, _ := r.upload(tt.upload)
			if status != tt.status || !strings.Contains(reply.Error, tt.says) {
				t.Errorf("%d %+v", status, reply)
			}
		})
	}
	t.Run("a header that was used before", func(t *testing.T) {
		_, _, auth := r.upload(upload{who: bob, body: []byte("x")})
		if status, reply, _ := r.upload(upload{auth: auth, body: []byte("x")}); status != 401 || reply.Error != "replayed" {
			t.Errorf("%d %+v", status, reply)
		}
		for _, f := range c.files(nil) {
			c.call(wire.TypeDeleteFile, ref(f.ID))
		}
	})
	t.Run("a body that is cut in the middle", func(t *testing.T) {
		half, end := io.Pipe()
		go func() {
			end.Write(make([]byte, 3*fileChunk+1))
			end.CloseWithError(errors.New("cut"))
		}()
		if status, _, _ := r.upload(upload{who: bob, body: over[:mesh.MaxSealedFile], stream: half}); status != 0 {
			t.Errorf("%d", status)
		}
		r.broker.files.running.Wait()
	})
	if n := r.stored(); n != 0 || len(c.files(nil)) != 0 {
		t.Errorf("%d messages and %v are left", n, c.files(nil))
	}
}

func TestTheLargestFile(t *testing.T) {
	r := newRig(t)
	body := bytes.Repeat([]byte("largest!"), mesh.MaxSealedFile/8)
	id := r.mustUpload(upload{who: r.owner, body: body})
	c := r.member(r.owner)
	if status, data, _ := r.fetchURL(into[wire.FileURL](c, c.call(wire.TypeGetFile, ref(id))).URL); status != http.StatusOK || data != string(body) {
		t.Errorf("%d, %d bytes", status, len(data))
	}
}

func TestAFullFileStore(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.MaxFiles, c.Limits.FilesPerMesh = 2<<20, 2 })
	status, reply, _ := r.upload(upload{who: r.owner, body: make([]byte, 3<<20)})
	if status != http.StatusInsufficientStorage || r.stored() != 0 {
		t.Errorf("%d %+v, %d messages are left", status, reply, r.stored())
	}
	for range 2 {
		r.mustUpload(upload{who: r.owner, body: make([]byte, 100<<10)})
	}
	if status, reply, _ := r.upload(upload{who: r.owner, body: []byte("x")}); status != http.StatusInsufficientStorage || !strings.Contains(reply.Error, "too many files") {
		t.Errorf("%d %+v", status, reply)
	}
}

func TestFilesThatAreNotToPersist(t *testing.T) {
	clock, fake := fakeClock(time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC))
	r := newRig(t, fake)
	id := r.mustUpload(upload{who: r.owner, body: []byte("x"), header: map[string]string{wire.HeaderPersistent: "false"}})
	kept := r.mustUpload(upload{who: r.owner, body: []byte("x")})
	c := r.member(r.owner)
	url := into[wire.FileURL](c, c.call(wire.TypeGetFile, ref(kept))).URL
	clock.Advance(2 * time.Minute)
	if status, _, _ := r.fetchURL(url); status != http.StatusNotFound {
		t.Errorf("a ticket of two minutes ago: %d", status)
	}
	clock.Advance(24 * time.Hour)
	c.notServed(wire.CodeNotFound, "", c.call(wire.TypeGetFile, ref(id)))
	if got := c.files(nil); len(got) != 1 || got[0].ID != kept {
		t.Errorf("%+v", got)
	}
	for deadline := time.Now().Add(patience); r.stored() != 2; time.Sleep(2 * time.Millisecond) { // the sweep announces nothing
		if time.Now().After(deadline) {
			t.Fatalf("%d messages, want one chunk and one description", r.stored())
		}
		clock.Advance(filesEvery)
	}
}

// What a crash leaves behind at any point of an upload or a deletion is removed by the next start.
func TestWhatACrashLeavesOfAFile(t *testing.T) {
	r := newRig(t)
	kept := r.mustUpload(upload{who: r.owner, body: []byte("kept")})
	ctx, s := t.Context(), r.broker.store
	// Bytes without a record, a key and accesses without a file, chunks without an object.
	if _, err := r.broker.files.put(ctx, mustID(t), strings.NewReader("no record")); err != nil {
		t.Fatal(err)
	}
	lost := mustID(t)
	err := errors.Join(
		s.putRecord(ctx, recordKey(familyFileKey, r.mesh.ID, lost, r.owner.PublicKey()), fileKeyRecord{"x"}),
		s.putRecord(ctx, recordKey(familyFileSeen, r.mesh.ID, lost), fileSeenRecord{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.js.Publish(ctx, chunkSubject("halfway"), []byte("half a file")); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if n := r.stored(); n != 2 {
		t.Errorf("%d messages, want one chunk and one description", n)
	}
	for _, family := range []string{familyFileKey, familyFileSeen} {
		if rows, err := listRecords[struct{}](ctx, r.broker.store, family); err != nil || len(rows) != 0 {
			t.Error(family, rows, err)
		}
	}
	c := r.member(r.owner)
	if status, data, _ := r.fetchURL(into[wire.FileURL](c, c.call(wire.TypeGetFile, ref(kept))).URL); status != http.StatusOK || data != "kept" {
		t.Errorf("%d %s", status, data)
	}
}

func TestABrokerThatStopsDoesNotWaitForAnUpload(t *testing.T) {
	r := newRig(t)
	half, end := io.Pipe()
	defer end.Close()
	done := make(chan int, 1)
	go func() {
		status, _, _ := r.upload(upload{who: r.owner, body: make([]byte, 1<<20), stream: half})
		done <- status
	}()
	if _, err := end.Write(make([]byte, 2*fileChunk)); err != nil { // the upload is under way
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.broker.Close(ctx); err != nil {
		t.Error(err)
	}
	end.CloseWithError(io.ErrUnexpectedEOF)
	if status := <-done; status == http.StatusOK {
		t.Error("half a file was taken")
	}
	if _, err := r.broker.files.objects.GetInfo(t.Context(), "x"); !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Error(err)
	}
}

func TestPace(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ago   time.Duration
		moved int64
		want  time.Duration // from now
	}{
		{"a transfer that begins has the grace", 0, 0, transferGrace},
		{"one that moves enough may pause as long, no longer", time.Minute, 100 * transferPace * 60, transferGrace},
		{"one that trickles runs out of time", transferGrace - time.Second, transferPace - 1, time.Second},
		{"one that has moved too little for long is over", 10 * time.Minute, transferPace, transferGrace + time.Second - 10*time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var until time.Time
			now := time.Now()
			p := &pace{begun: now.Add(-tt.ago), moved: tt.moved, set: func(at time.Time) error { until = at; return nil }}
			p.next()
			if d := until.Sub(now) - tt.want; d < 0 || d > patience {
				t.Errorf("%s, want %s", until.Sub(now), tt.want)
			}
		})
	}
}
