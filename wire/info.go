package wire

import "claudemesh/mesh"

// Frame types of the overview of a mesh.
const (
	TypeMeshInfo       = "mesh_info"
	TypeMeshInfoResult = "mesh_info_result"
)

// MeshInfo answers mesh_info, which has no fields. Mesh is the id; Peers counts connections; Groups are those of the peers, as "@name". StateKeys are the
// first of them when they are many: StateCount, which is ours, is how many there are.
type MeshInfo struct {
	Type        string       `json:"type"`
	Mesh        string       `json:"mesh"`
	Peers       int          `json:"peers"`
	Groups      []string     `json:"groups"`
	StateKeys   []string     `json:"stateKeys"`
	StateCount  int          `json:"stateCount"`
	MemoryCount int          `json:"memoryCount"`
	SkillCount  int          `json:"skillCount"`
	FileCount   int          `json:"fileCount"`
	Tasks       TaskCounts   `json:"tasks"`
	Streams     []string     `json:"streams"`
	Tables      []string     `json:"tables"`
	Collections []string     `json:"collections"`
	YourName    string       `json:"yourName"`
	YourGroups  []mesh.Group `json:"yourGroups"`
	ReqID       string       `json:"_reqId,omitempty"`
}

// TaskCounts are the mesh's tasks by state.
type TaskCounts struct {
	Open    int `json:"open"`
	Claimed int `json:"claimed"`
	Done    int `json:"done"`
}
