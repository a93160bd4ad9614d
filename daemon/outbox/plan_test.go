package outbox

import (
	"strings"
	"testing"
)

func TestNoRoutineStatementReadsTheWholeTable(t *testing.T) {
	s, _ := openTest(t)
	for name, query := range map[string]string{
		"lane heads": laneHeads, "lane rows": laneRows, "lookup": selectByCMID, "by client message id": selectByAny,
		"queued": selectQueued, "counts": selectCounts, "recover": recoverRows, "wake": wakeRows,
	} {
		t.Run(name, func(t *testing.T) {
			args := make([]any, strings.Count(query, "?"))
			for n := 9; n > 0; n-- { // a numbered parameter counts once
				if c := strings.Count(query, "?"+string(rune('0'+n))); c > 1 {
					args = args[:len(args)-c+1]
				}
			}
			rows, err := s.db.Read().Query("EXPLAIN QUERY PLAN "+query, args...)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for rows.Next() {
				var id, parent, x int
				var detail string
				if err := rows.Scan(&id, &parent, &x, &detail); err != nil {
					t.Fatal(err)
				}
				t.Log(detail)
				if strings.HasPrefix(detail, "SCAN ") && !strings.HasPrefix(detail, "SCAN lane") &&
					!strings.HasPrefix(detail, "SCAN head") && !strings.Contains(detail, "CONSTANT ROW") && !strings.Contains(detail, "COVERING INDEX") {
					t.Errorf("%s", detail)
				}
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
