package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/wire"
)

// What a mesh's broker says about it, by a request that the member signs.

// serverPatience bounds how long a list waits for brokers; they are asked at the same time.
const serverPatience = 3 * time.Second

// maxMeshRows bounds the answer of GET /cli/meshes in bytes.
const maxMeshRows = 1 << 20

// server asks the broker about the mesh.
func (m *meshRun) server(ctx context.Context) (wire.MeshRow, error) {
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	res, err := m.links.HTTP(ctx, bridge.Request{Method: http.MethodGet, Target: "/cli/meshes"})
	if err != nil {
		return wire.MeshRow{}, err
	}
	defer res.Body.Close()
	var rows wire.MeshRows
	if err := json.NewDecoder(io.LimitReader(res.Body, maxMeshRows)).Decode(&rows); err != nil || res.StatusCode != http.StatusOK {
		return wire.MeshRow{}, fmt.Errorf("list meshes: HTTP %d %s", res.StatusCode, printable(rows.Error))
	}
	i := slices.IndexFunc(rows.Meshes, func(r wire.MeshRow) bool { return r.ID == m.joined.MeshID })
	if i < 0 {
		return wire.MeshRow{}, fmt.Errorf("list meshes: the broker does not list mesh %s", m.joined.Slug)
	}
	return rows.Meshes[i], nil
}

// askServers fills in what the brokers say; a mesh whose broker does not answer in time has nothing filled in.
func (d *Daemon) askServers(ctx context.Context, runs []*meshRun, rows []bus.MeshStatus) {
	var wg sync.WaitGroup
	for i, m := range runs {
		wg.Go(func() {
			r, err := m.server(ctx)
			if err != nil {
				d.opt.Log.Debug("mesh_not_listed", "mesh", m.joined.Slug, "error", err)
				return
			}
			rows[i].Server = &bus.MeshServer{
				Slug: printable(r.Slug), Name: printable(r.Name), Role: printable(r.Role), IsOwner: r.IsOwner, OwnerName: printable(r.OwnerName),
				Members: r.MemberCount, Online: r.ActivePeers,
			}
		})
	}
	wg.Wait()
}
