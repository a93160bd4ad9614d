package cli

import (
	"context"
	"fmt"
	"strings"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// infoJSON is what info prints: the membership as this daemon knows it, and what the broker counts.
type infoJSON struct {
	Slug        string          `json:"slug"`
	Name        string          `json:"name"`
	MeshID      string          `json:"meshId"`
	MemberID    string          `json:"memberId"`
	Pubkey      string          `json:"pubkey"`
	BrokerURL   string          `json:"brokerUrl"`
	DisplayName string          `json:"displayName"`
	Link        string          `json:"link"`
	PeerCount   int             `json:"peerCount"`
	StateCount  int             `json:"stateCount"`
	MemoryCount int             `json:"memoryCount"`
	SkillCount  int             `json:"skillCount"`
	FileCount   int             `json:"fileCount"`
	Groups      []string        `json:"groups"`
	StateKeys   []string        `json:"stateKeys"`
	Tasks       wire.TaskCounts `json:"tasks"`
	YourName    string          `json:"yourName"`
	YourGroups  []mesh.Group    `json:"yourGroups"`
}

func infoVerb() verb {
	return verb{
		name: "info", args: "", short: "show one mesh: who you are on it, and what it holds",
		examples: []string{"claudemesh info", "claudemesh info --mesh team --json"},
		fails:    []string{"3  several meshes are joined and none is named", "4  the broker cannot be reached", "5  no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh info"); err != nil {
				return err
			}
			var info infoJSON
			err := c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				var m wire.MeshInfo
				if err := n.broker(ctx, slug, wire.TypeMeshInfo, nil, &m); err != nil {
					return err
				}
				var list bus.MeshList
				if err := n.daemon(ctx, bus.OpMeshList, nil, &list); err != nil {
					return err
				}
				info = newInfo(slug, m)
				for _, s := range list.Meshes {
					if s.Mesh == slug {
						info.Name, info.MemberID, info.Pubkey, info.BrokerURL, info.DisplayName, info.Link = s.Name, s.MemberID, s.Pubkey, s.BrokerURL, s.DisplayName, s.Link
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			return c.ui.result(info, func() error { return c.printInfo(info) })
		},
	}
}

func newInfo(slug string, m wire.MeshInfo) infoJSON {
	return infoJSON{
		Slug: slug, MeshID: m.Mesh, PeerCount: m.Peers, StateCount: max(m.StateCount, len(m.StateKeys)), MemoryCount: m.MemoryCount, SkillCount: m.SkillCount,
		FileCount: m.FileCount, Groups: append([]string{}, m.Groups...), StateKeys: append([]string{}, m.StateKeys...), Tasks: m.Tasks,
		YourName: m.YourName, YourGroups: append([]mesh.Group{}, m.YourGroups...),
	}
}

func (c *call) printInfo(i infoJSON) error {
	for _, row := range [][2]string{
		{"mesh", i.Slug + "  (" + i.MeshID + ")"},
		{"broker", i.BrokerURL + "  " + i.Link},
		{"you", i.DisplayName + "  (member " + i.MemberID + ")"},
		{"peers", fmt.Sprint(i.PeerCount)},
		{"groups", strings.Join(i.Groups, ", ")},
		{"state", plural(i.StateCount, "key")},
		{"memories", fmt.Sprint(i.MemoryCount)},
		{"skills", fmt.Sprint(i.SkillCount)},
		{"files", fmt.Sprint(i.FileCount)},
	} {
		if row[1] == "" {
			row[1] = "none"
		}
		if err := c.ui.print("%s %s", c.ui.paint(dim, fmt.Sprintf("%-9s", row[0])), cleanLine(row[1])); err != nil {
			return err
		}
	}
	return nil
}
