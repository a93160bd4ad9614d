package wire

import "fmt"

// Frame types of the mesh's memory.
const (
	TypeRemember      = "remember"
	TypeRecall        = "recall"
	TypeForget        = "forget"
	TypeMemoryStored  = "memory_stored"
	TypeMemoryResults = "memory_results"
)

// Limits of memories, and of the tags that memories and skills have.
const (
	MaxMemory  = 64 << 10 // bytes of text
	MaxRecall  = 20       // memories in one answer
	MaxTags    = 32
	MaxTag     = 64   // bytes
	MaxQuery   = 4096 // bytes of a search
	MaxIDField = 64   // bytes of an id that the broker made
)

// Remember stores a text that every member can find by its words.
type Remember struct {
	Type    string   `json:"type"`
	Content string   `json:"content"`
	Tags    []string `json:"tags,omitempty"`
	ReqID   string   `json:"_reqId,omitempty"`
}

// Validate checks presence and sizes.
func (r Remember) Validate() error {
	return firstError(required("content", r.Content), tooLong("content", r.Content, MaxMemory), validTags(r.Tags))
}

// MemoryStored answers it.
type MemoryStored struct {
	Type  string `json:"type"`
	ID    string `json:"id"`
	ReqID string `json:"_reqId,omitempty"`
}

// Recall asks for the memories that hold all words of the query.
type Recall struct {
	Type  string `json:"type"`
	Query string `json:"query"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the length. An empty query is allowed, and finds nothing.
func (r Recall) Validate() error { return tooLong("query", r.Query, MaxQuery) }

// Memory is one of them. RememberedBy is the display name of its author.
type Memory struct {
	ID           string   `json:"id"`
	Content      string   `json:"content"`
	Tags         []string `json:"tags"`
	RememberedBy string   `json:"rememberedBy"`
	RememberedAt string   `json:"rememberedAt"`
}

// MemoryResults answers Recall, best first, at most MaxRecall. More (ours): the answer was full before all that matched were in it.
type MemoryResults struct {
	Type     string   `json:"type"`
	Memories []Memory `json:"memories"`
	More     bool     `json:"more,omitempty"`
	ReqID    string   `json:"_reqId,omitempty"`
}

// Forget removes a memory: the author's own, or any for an admin. It is answered by an ack, also when there was nothing to forget.
type Forget struct {
	Type     string `json:"type"`
	MemoryID string `json:"memoryId"`
	ReqID    string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (f Forget) Validate() error {
	return firstError(required("memoryId", f.MemoryID), tooLong("memoryId", f.MemoryID, MaxIDField))
}

func validTags(tags []string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("%w: more than %d tags", ErrInvalid, MaxTags)
	}
	for _, t := range tags {
		if err := firstError(required("tag", t), tooLong("tag", t, MaxTag)); err != nil {
			return err
		}
	}
	return nil
}
