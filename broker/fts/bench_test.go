package fts

import (
	"fmt"
	"testing"
)

// BenchmarkSearch is the worst case: every document matches.
func BenchmarkSearch(b *testing.B) {
	v := open(b, "")
	docs := make([]Doc, 10_000)
	for i := range docs {
		docs[i] = Doc{"m", "memory", fmt.Sprint(i), fmt.Sprintf("fact number %d about the staging database and its replica in region %d", i, i%17)}
	}
	put(b, v, docs...)
	for _, query := range []string{"replica database", "fact 4711"} {
		b.Run(query, func(b *testing.B) {
			for b.Loop() {
				if hits, err := v.Search(b.Context(), "m", "memory", query, 20); err != nil || len(hits) == 0 {
					b.Fatal(hits, err)
				}
			}
		})
	}
}
