package broker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"claudemesh/wire"
)

// The requests about files. Whom a file is meant for is asked in one place, fileViewer.mayHave, for every request and for the download.

// fileViewer is who asks for a file: a member, and the session key of its connection if it has one.
type fileViewer struct {
	mesh    *meshState
	member  *member
	session string
}

func (c *conn) fileViewer() fileViewer { return fileViewer{c.mesh, c.member, c.sessionKey} }

// is reports whether key is one of the viewer's.
func (v fileViewer) is(key string) bool {
	return key != "" && (key == v.member.Pubkey || key == v.session)
}

// owns reports whether the file is the viewer's own.
func (v fileViewer) owns(r *fileRecord) bool { return v.is(r.OwnerKey) || v.is(r.UploaderKey) }

// mayHave reports whether the file is meant for the viewer, by a key of its member's or of one of its member's sessions.
func (b *Broker) mayHave(v fileViewer, r *fileRecord) bool {
	if r.Target == "" || r.Target == "*" || v.is(r.Target) || v.owns(r) || slices.ContainsFunc(r.Granted, v.is) {
		return true
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return v.mesh.ownerOf(r.Target) == v.member.Pubkey
}

// file reads a file's record; errNoRecord when there is none, or none any more.
func (b *Broker) file(ctx context.Context, meshID, id string) (*fileRecord, error) {
	if !validID(id) {
		return nil, errNoRecord
	}
	r, err := getRecord[fileRecord](ctx, b.store, recordKey(familyFile, meshID, id))
	if err != nil {
		return nil, err
	}
	if r.Value.expired(b.now()) {
		return nil, errNoRecord
	}
	return &r.Value, nil
}

// sealedKey returns the file's key that was sealed for the viewer, "" when there is none: for its session first, as the reference looks it up, then for
// its member, which our daemons seal for.
func (b *Broker) sealedKey(ctx context.Context, v fileViewer, id string) (string, error) {
	for _, key := range []string{v.session, v.member.Pubkey} {
		if key == "" {
			continue
		}
		r, err := getRecord[fileKeyRecord](ctx, b.store, recordKey(familyFileKey, v.mesh.rec.ID, id, key))
		if err == nil {
			return r.Value.SealedKey, nil
		}
		if !errors.Is(err, errNoRecord) {
			return "", err
		}
	}
	return "", nil
}

var (
	errNotTargeted = refused(wire.CodeForbidden, "file not targeted at you")
	errNoFileKey   = refused(wire.CodeForbidden, "no decryption key for this file")
	errNoFile      = refused(wire.CodeNotFound, "file not found")
)

// fileFor reads a file for somebody who wants its bytes, and the key for it. Errors: a *refusal, or the store's.
func (b *Broker) fileFor(ctx context.Context, v fileViewer, id string) (*fileRecord, string, error) {
	r, err := b.file(ctx, v.mesh.rec.ID, id)
	switch {
	case errors.Is(err, errNoRecord):
		return nil, "", errNoFile
	case err != nil:
		return nil, "", err
	case !b.mayHave(v, r):
		return nil, "", errNotTargeted
	case !r.Encrypted:
		return r, "", nil
	}
	sealed, err := b.sealedKey(ctx, v, id)
	if err == nil && sealed == "" && !v.owns(r) {
		return nil, "", errNoFileKey
	}
	return r, sealed, err
}

func (c *conn) getFile(data []byte, reqID string) {
	var f wire.FileRef
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	v := c.fileViewer()
	r, sealed, err := c.b.fileFor(ctx, v, f.FileID)
	url := ""
	if err == nil {
		if err = c.b.noteAccess(ctx, v, r.ID, 0); err == nil {
			url, err = c.b.fileURL(v, r.ID)
		}
	}
	if err != nil {
		c.fileFailed(reqID, wire.TypeGetFile, err)
		return
	}
	c.reply(wire.FileURL{Type: wire.TypeFileURL, FileID: r.ID, URL: url, Name: r.Name, Encrypted: r.Encrypted, SealedKey: sealed, Size: r.Size, ReqID: reqID})
}

// fileFailed answers with a refusal, or for the store.
func (c *conn) fileFailed(reqID, op string, err error) {
	var no *refusal
	if errors.As(err, &no) {
		c.fail(reqID, no.code, no.message)
		return
	}
	c.storeFailed(reqID, op, err)
}

// noteAccess writes down who had a file, unless the same member did so within the time given. Two at one time are both written.
func (b *Broker) noteAccess(ctx context.Context, v fileViewer, id string, within time.Duration) error {
	now := b.now()
	b.mu.RLock()
	access := fileAccess{Name: v.member.Name, Member: v.member.Pubkey, At: now.UnixMilli()}
	b.mu.RUnlock()
	key := recordKey(familyFileSeen, v.mesh.rec.ID, id)
	for {
		r, err := getRecord[fileSeenRecord](ctx, b.store, key)
		if err != nil && !errors.Is(err, errNoRecord) {
			return err
		}
		if slices.ContainsFunc(r.Value.Accesses, func(a fileAccess) bool { return a.Member == access.Member && a.At > now.Add(-within).UnixMilli() }) {
			return nil
		}
		seen := append([]fileAccess{access}, r.Value.Accesses...)
		seen = seen[:min(len(seen), wire.MaxFileAccesses)]
		if errors.Is(err, errNoRecord) {
			err = b.store.createRecord(ctx, key, fileSeenRecord{seen})
		} else {
			err = b.store.updateRecord(ctx, key, fileSeenRecord{seen}, r.Revision)
		}
		if !errors.Is(err, errRecordExists) && !errors.Is(err, errRecordMoved) {
			return err
		}
	}
}

func (c *conn) listFiles(data []byte, reqID string) {
	var f wire.ListFiles
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	all, err := listRecords[fileRecord](ctx, c.b.store, familyFile, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeListFiles, err)
		return
	}
	slices.SortFunc(all, func(a, b record[fileRecord]) int {
		if d := b.Value.UploadedAt - a.Value.UploadedAt; d != 0 {
			return int(d)
		}
		return strings.Compare(b.Value.ID, a.Value.ID)
	})
	v, query, out := c.fileViewer(), strings.ToLower(f.Query), []wire.FileInfo{}
	for _, entry := range all {
		r := &entry.Value
		if len(out) == wire.MaxFileList {
			break
		}
		if !strings.Contains(strings.ToLower(r.Name), query) || f.From != "" && f.From != r.UploadedBy || r.expired(c.b.now()) || !c.b.mayHave(v, r) {
			continue
		}
		out = append(out, wire.FileInfo{
			ID: r.ID, Name: r.Name, Size: r.Size, Tags: append([]string{}, r.Tags...), UploadedBy: r.UploadedBy, UploadedAt: wire.Timestamp(unixMilli(r.UploadedAt)),
			Persistent: r.Expires == 0, Encrypted: r.Encrypted,
		})
	}
	c.replyOr(reqID, wire.CodeInvalid, "the list is too long for one answer, ask for a part of the names", wire.FileList{Type: wire.TypeFileList, Files: out, ReqID: reqID})
}

// fileStatus lists who had a file. A file that is not the caller's to have has no accesses, like one that never was.
func (c *conn) fileStatus(data []byte, reqID string) {
	var f wire.FileRef
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	out := wire.FileStatusResult{Type: wire.TypeFileStatusResult, FileID: f.FileID, Accesses: []wire.FileAccess{}, ReqID: reqID}
	r, err := c.b.file(ctx, c.mesh.rec.ID, f.FileID)
	if err == nil && c.b.mayHave(c.fileViewer(), r) {
		var seen record[fileSeenRecord]
		seen, err = getRecord[fileSeenRecord](ctx, c.b.store, recordKey(familyFileSeen, c.mesh.rec.ID, r.ID))
		for _, a := range seen.Value.Accesses {
			out.Accesses = append(out.Accesses, wire.FileAccess{PeerName: a.Name, AccessedAt: wire.Timestamp(unixMilli(a.At))})
		}
	}
	if err != nil && !errors.Is(err, errNoRecord) {
		c.storeFailed(reqID, wire.TypeFileStatus, err)
		return
	}
	c.reply(out)
}

// maxKeysPerFile bounds the sealed keys of one file: one for each member, and as many for sessions.
func (b *Broker) maxKeysPerFile() int { return 2 * b.lim.MembersPerMesh }

func (c *conn) grantFileAccess(data []byte, reqID string) {
	var f wire.GrantFileAccess
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	v := c.fileViewer()
	r, err := c.b.file(ctx, c.mesh.rec.ID, f.FileID)
	switch {
	case errors.Is(err, errNoRecord), err == nil && !c.b.mayHave(v, r):
		err = errNoFile
	case err == nil && c.mayTouch(wire.TypeGrantFileAccess, v.owns(r)) != nil:
		err = refused(wire.CodeForbidden, "only the file owner can grant access")
	case err == nil:
		if bad := f.ValidKey(); bad != nil {
			err = refused(wire.CodeInvalid, bad.Error())
			break
		}
		err = c.b.letIn(ctx, c.mesh.rec.ID, r.ID, f.FileKey)
	}
	if err != nil {
		c.fileFailed(reqID, wire.TypeGrantFileAccess, err)
		return
	}
	c.reply(wire.FileAccessOK{Type: wire.TypeFileAccessOK, FileID: f.FileID, PeerPubkey: f.PeerPubkey, ReqID: reqID})
}

// letIn gives a peer its sealed key of a file, and lets it past the file's target.
func (b *Broker) letIn(ctx context.Context, meshID, id string, k wire.FileKey) error {
	keys, err := b.store.recordKeys(ctx, familyFileKey, meshID, id)
	if err != nil {
		return err
	}
	if len(keys) >= b.maxKeysPerFile() {
		return refused(wire.CodeLimit, "too many peers have access to this file")
	}
	if err := b.store.putRecord(ctx, recordKey(familyFileKey, meshID, id, k.PeerPubkey), fileKeyRecord{k.SealedKey}); err != nil {
		return err
	}
	for {
		r, err := getRecord[fileRecord](ctx, b.store, recordKey(familyFile, meshID, id))
		switch {
		case errors.Is(err, errNoRecord):
			return errNoFile
		case err != nil:
			return err
		case r.Value.Target == "" || r.Value.Target == "*" || r.Value.Target == k.PeerPubkey || slices.Contains(r.Value.Granted, k.PeerPubkey):
			return nil
		}
		r.Value.Granted = append(r.Value.Granted, k.PeerPubkey)
		if err := b.store.updateRecord(ctx, r.Key, r.Value, r.Revision); !errors.Is(err, errRecordMoved) {
			return err
		}
	}
}

// deleteFile answers with an ack always, as the reference does; ours says whether there was such a file.
func (c *conn) deleteFile(data []byte, reqID string) {
	var f wire.FileRef
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	v, found := c.fileViewer(), false
	r, err := c.b.file(ctx, c.mesh.rec.ID, f.FileID)
	if err == nil && (c.b.mayHave(v, r) || c.mayTouch(wire.TypeDeleteFile, false) == nil) {
		if no := c.mayTouch(wire.TypeDeleteFile, v.owns(r)); no != nil {
			err = no
		} else {
			found, err = true, c.b.files.remove(ctx, r.Mesh, r.ID)
		}
	}
	if err != nil && !errors.Is(err, errNoRecord) {
		c.fileFailed(reqID, wire.TypeDeleteFile, err)
		return
	}
	c.reply(wire.FileDeleted{Ack: wire.Ack{Type: wire.TypeAck, ID: f.FileID, MessageID: f.FileID, ReqID: reqID}, Found: &found})
}
