package wire

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"claudemesh/mesh"
)

// Files: their bytes travel by HTTP (POST /upload, GET /download/{fileId}), everything else by these frames.

// Frame types of the files.
const (
	TypeGetFile          = "get_file"
	TypeListFiles        = "list_files"
	TypeFileStatus       = "file_status"
	TypeGrantFileAccess  = "grant_file_access"
	TypeDeleteFile       = "delete_file"
	TypeFileURL          = "file_url"
	TypeFileList         = "file_list"
	TypeFileStatusResult = "file_status_result"
	TypeFileAccessOK     = "grant_file_access_ok"
)

// Limits of the files. The body is bounded by mesh.MaxSealedFile.
const (
	MaxFileNameBytes = 255
	MaxFileTags      = 32
	MaxFileTagBytes  = 64
	MaxFileList      = 100 // of one file_list
	MaxFileKeys      = 64  // of one upload; more are added by grant_file_access
	MaxFileAccesses  = 100 // the newest are kept
)

// Headers of an upload, spelled as the reference does; the first two are redundant here because the request is signed, and must not contradict it.
const (
	HeaderMeshID      = "X-Mesh-Id"
	HeaderMemberID    = "X-Member-Id"
	HeaderFileName    = "X-File-Name"    // required: a bare name in UTF-8
	HeaderTags        = "X-Tags"         // JSON array of strings
	HeaderPersistent  = "X-Persistent"   // "false": the file expires
	HeaderTargetSpec  = "X-Target-Spec"  // empty, "*" or the key of who may have it
	HeaderEncrypted   = "X-Encrypted"    // "true": the body is sealed
	HeaderOwnerPubkey = "X-Owner-Pubkey" // who may grant access
	HeaderFileKeys    = "X-File-Keys"    // JSON array of FileKey
)

// FileKey is the key of an encrypted file, sealed for one public key.
type FileKey struct {
	PeerPubkey string `json:"peerPubkey"`
	SealedKey  string `json:"sealedKey"`
}

func (k FileKey) validate() error {
	if !mesh.ValidKey(k.PeerPubkey) {
		return fmt.Errorf("%w: peerPubkey is no public key", ErrInvalid)
	}
	return firstError(required("sealedKey", k.SealedKey), tooLong("sealedKey", k.SealedKey, maxSealedText))
}

// ParseFileKeys reads HeaderFileKeys. Errors wrap ErrMalformed or ErrInvalid.
func ParseFileKeys(header string) (keys []FileKey, err error) {
	if header == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(header), &keys); err != nil {
		return nil, fmt.Errorf("%w: %s is not a JSON array of keys", ErrMalformed, HeaderFileKeys)
	}
	if len(keys) > MaxFileKeys {
		return nil, fmt.Errorf("%w: more than %d keys", ErrInvalid, MaxFileKeys)
	}
	for _, k := range keys {
		if err := k.validate(); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// ParseFileTags reads HeaderTags. Errors wrap ErrMalformed or ErrInvalid.
func ParseFileTags(header string) (tags []string, err error) {
	if header == "" {
		return []string{}, nil
	}
	if err := json.Unmarshal([]byte(header), &tags); err != nil || tags == nil {
		return nil, fmt.Errorf("%w: %s is not a JSON array of strings", ErrMalformed, HeaderTags)
	}
	return tags, CheckFileTags(tags)
}

// CheckFileTags checks number and lengths.
func CheckFileTags(tags []string) error {
	if len(tags) > MaxFileTags {
		return fmt.Errorf("%w: more than %d tags", ErrInvalid, MaxFileTags)
	}
	for _, t := range tags {
		if err := firstError(required("tag", t), tooLong("tag", t, MaxFileTagBytes)); err != nil {
			return err
		}
	}
	return nil
}

// CheckFileName reports what is wrong with a file's name: it is one element of a path, 1 to 255 bytes of UTF-8, without control characters.
func CheckFileName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || len(name) > MaxFileNameBytes:
		return fmt.Errorf("%w: a file name has 1 to %d bytes", ErrInvalid, MaxFileNameBytes)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r == '\\' || unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control)
	}):
		return fmt.Errorf("%w: a file name is plain text without / and \\", ErrInvalid)
	}
	return nil
}

// FileRef is the requests get_file, file_status and delete_file.
type FileRef struct {
	Type   string `json:"type"`
	FileID string `json:"fileId"`
	ReqID  string `json:"_reqId,omitempty"`
}

// Validate checks the id's length.
func (f FileRef) Validate() error {
	return firstError(required("fileId", f.FileID), tooLong("fileId", f.FileID, MaxIDBytes))
}

// FileURL answers get_file. URL works for a minute and once, without any header. SealedKey is the caller's, when the file is encrypted.
type FileURL struct {
	Type      string `json:"type"`
	FileID    string `json:"fileId"`
	URL       string `json:"url"`
	Name      string `json:"name"`
	Encrypted bool   `json:"encrypted"`
	SealedKey string `json:"sealedKey,omitempty"`
	ReqID     string `json:"_reqId,omitempty"`
	// Size of the stored body in bytes. Ours; absent from a reference broker.
	Size int64 `json:"size,omitempty"`
}

// ListFiles asks for the files that the caller may have. Query is a part of the name, in any case; From the member id of the uploader.
type ListFiles struct {
	Type  string `json:"type"`
	Query string `json:"query,omitempty"`
	From  string `json:"from,omitempty"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks lengths.
func (f ListFiles) Validate() error {
	return firstError(tooLong("query", f.Query, MaxFileNameBytes), tooLong("from", f.From, MaxIDBytes))
}

// FileList answers it: newest first, at most MaxFileList.
type FileList struct {
	Type  string     `json:"type"`
	Files []FileInfo `json:"files"`
	ReqID string     `json:"_reqId,omitempty"`
}

// FileInfo is one row. UploadedBy is a member id, Size that of the stored body in bytes.
type FileInfo struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Size       int64    `json:"size"`
	Tags       []string `json:"tags"`
	UploadedBy string   `json:"uploadedBy"`
	UploadedAt string   `json:"uploadedAt"`
	Persistent bool     `json:"persistent"`
	Encrypted  bool     `json:"encrypted"`
}

// FileStatusResult answers file_status, newest access first.
type FileStatusResult struct {
	Type     string       `json:"type"`
	FileID   string       `json:"fileId"`
	Accesses []FileAccess `json:"accesses"`
	ReqID    string       `json:"_reqId,omitempty"`
}

// FileAccess is one get_file that succeeded.
type FileAccess struct {
	PeerName   string `json:"peerName"`
	AccessedAt string `json:"accessedAt"`
}

// GrantFileAccess gives a peer the key of an encrypted file, sealed for PeerPubkey.
type GrantFileAccess struct {
	Type   string `json:"type"`
	FileID string `json:"fileId"`
	FileKey
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the id's length. The key is checked by ValidKey: an unknown file is told first, as the reference does.
func (f GrantFileAccess) Validate() error {
	return firstError(required("fileId", f.FileID), tooLong("fileId", f.FileID, MaxIDBytes))
}

// ValidKey reports what is wrong with the key.
func (f GrantFileAccess) ValidKey() error { return f.validate() }

// FileAccessOK answers it.
type FileAccessOK struct {
	Type       string `json:"type"`
	FileID     string `json:"fileId"`
	PeerPubkey string `json:"peerPubkey"`
	ReqID      string `json:"_reqId,omitempty"`
}

// FileDeleted answers delete_file: an ack, as the reference sends it for files that never were, too.
type FileDeleted struct {
	Ack
	// Found tells whether there was such a file. Ours; absent from a reference broker.
	Found *bool `json:"found,omitempty"`
}

// UploadReply answers POST /upload.
type UploadReply struct {
	OK     bool   `json:"ok"`
	FileID string `json:"fileId,omitempty"`
	Error  string `json:"error,omitempty"`
}
