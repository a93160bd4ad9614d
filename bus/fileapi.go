package bus

// The payloads of files. A client and its daemon pass a file in chunks; the daemon encrypts and uploads, or downloads and decrypts. Shared: file-begin,
// file-chunk until all of it is there, file-commit. Fetched: file-open, file-fetch, file-read until the end. Each ends with file-close; what is forgotten is
// removed after a while. A transfer belongs to the actor that began it, nobody else can name it.

// Operations of files, the last token of daemon.<actor>.<op>. A limited session needs the capability "files".
const (
	OpFileBegin    = "file-begin"
	OpFileChunk    = "file-chunk"
	OpFileCommit   = "file-commit"
	OpFileOpen     = "file-open"
	OpFileFetch    = "file-fetch"
	OpFileRead     = "file-read"
	OpFileProgress = "file-progress"
	OpFileClose    = "file-close"
	OpFileGrant    = "file-grant"
)

// Broker operations of files that need no key.
const (
	CallListFiles  = "list_files"
	CallFileStatus = "file_status"
	CallDeleteFile = "delete_file"
)

// FileChunkSize is the most bytes of a file in one request or reply.
const FileChunkSize = 256 << 10

// FileBegin announces a file to be shared. To is a peer (a name or key) or empty for all members of the mesh as they are now; those who join later get no
// key by themselves. Errors: 413 payload_too_large, 429 too_many_transfers, those of a target that means nobody.
type FileBegin struct {
	Mesh      string   `json:"mesh"`
	Name      string   `json:"name"` // 1 to 255 bytes, no path
	Size      int64    `json:"size"` // bytes
	To        string   `json:"to,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	Ephemeral bool     `json:"ephemeral,omitempty"` // the broker removes it after a day
}

// FileTransfer names a transfer: the reply to file-begin, the request of file-commit, file-fetch, file-progress and file-close.
type FileTransfer struct {
	ID string `json:"id"`
}

// FileChunk carries the next bytes, at most FileChunkSize; Offset is the number of those before them.
type FileChunk struct {
	ID     string `json:"id"`
	Offset int64  `json:"offset"`
	Data   []byte `json:"data"`
}

// FileShared answers file-commit.
type FileShared struct {
	FileID string `json:"file_id"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	// To is the member that it was shared with, empty for all.
	ToKey  string `json:"to_key,omitempty"`
	ToName string `json:"to_name,omitempty"`
	// Recipients is the number of members that have the key, the sharing one included.
	Recipients int `json:"recipients"`
	// Missed are members that could not be given the key, by name or key.
	Missed []string `json:"missed,omitempty"`
}

// FileOpen asks for a file of the mesh.
type FileOpen struct {
	Mesh   string `json:"mesh"`
	FileID string `json:"file_id"`
}

// FileOpened answers it. Name is what the uploader called it: not to be used as a path as it is.
type FileOpened struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Encrypted bool   `json:"encrypted"`
}

// FileFetched answers file-fetch, when all of the file is there and decrypted.
type FileFetched struct {
	Size int64 `json:"size"`
}

// FileRead asks for bytes of a fetched file, at most FileChunkSize of them.
type FileRead struct {
	ID     string `json:"id"`
	Offset int64  `json:"offset"`
}

// FileData answers it; Data is empty at the end.
type FileData struct {
	Data []byte `json:"data"`
}

// FileProgress answers file-progress: bytes moved between daemon and broker, and of how many, 0 while that is not known.
type FileProgress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// FileGrant gives a peer the key of an encrypted file that this member owns.
type FileGrant struct {
	Mesh   string `json:"mesh"`
	FileID string `json:"file_id"`
	To     string `json:"to"`
}

// FileGranted answers it.
type FileGranted struct {
	FileID string `json:"file_id"`
	ToKey  string `json:"to_key"`
	ToName string `json:"to_name,omitempty"`
}
