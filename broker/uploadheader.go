package broker

import (
	"net/http"
	"unicode/utf8"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// readUploadHeader makes a record of an upload's headers. The mesh and the member are those of the signature; what the headers say must not differ, or a
// file would lie where its uploader has no business.
func readUploadHeader(h http.Header, who httpCaller) (*fileRecord, []wire.FileKey, *httpRefusal) {
	bad := func(what string) (*fileRecord, []wire.FileKey, *httpRefusal) {
		return nil, nil, &httpRefusal{http.StatusBadRequest, what}
	}
	if m := h.Get(wire.HeaderMeshID); m != "" && m != who.mesh.rec.ID {
		return nil, nil, &httpRefusal{http.StatusForbidden, "the request is signed for another mesh"}
	}
	if m := h.Get(wire.HeaderMemberID); m != "" && m != who.member.ID {
		return nil, nil, &httpRefusal{http.StatusForbidden, "the request is signed by another member"}
	}
	name := headerText(h.Get(wire.HeaderFileName))
	if name == "" {
		return bad(wire.HeaderFileName + " required")
	}
	if err := wire.CheckFileName(name); err != nil {
		return bad(err.Error())
	}
	tags, err := wire.ParseFileTags(headerText(h.Get(wire.HeaderTags)))
	if err != nil {
		return bad(err.Error())
	}
	keys, err := wire.ParseFileKeys(h.Get(wire.HeaderFileKeys))
	if err != nil {
		return bad(err.Error())
	}
	// A display name would keep the file from everybody, and who it means may change.
	target := h.Get(wire.HeaderTargetSpec)
	if target != "" && target != "*" && !mesh.ValidKey(target) {
		return bad(wire.HeaderTargetSpec + ` must be a public key or "*"`)
	}
	owner := h.Get(wire.HeaderOwnerPubkey)
	if owner != "" && !mesh.ValidKey(owner) {
		return bad(wire.HeaderOwnerPubkey + " must be a public key")
	}
	rec := &fileRecord{
		Name: name, Tags: tags, UploadedBy: who.member.ID, UploaderKey: who.member.Pubkey, OwnerKey: owner, Target: target, Encrypted: h.Get(wire.HeaderEncrypted) == "true",
	}
	if h.Get(wire.HeaderPersistent) == "false" {
		rec.Expires = 1 // the time is set when the file is stored
	}
	if len(keys) > 0 && !rec.Encrypted {
		return bad("keys of a file that is not encrypted")
	}
	return rec, keys, nil
}

// headerText reads a header's value as UTF-8, or as Latin-1, which is what other clients' libraries write.
func headerText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}
