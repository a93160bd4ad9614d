package inbox

import (
	"errors"
	"testing"
)

func TestFindTakesAnyIDAndShowsASessionItsOwnOnly(t *testing.T) {
	s, _ := openTest(t)
	m := message("client-0001", ToSession)
	m.BrokerMessageID = "Broker0000000001"
	m = insert(t, s, m, "bob")
	other := message("client-0002", ToSession)
	insert(t, s, other, "carol")
	for _, c := range []struct {
		name, ref, session string
		want               string
		err                error
	}{
		{"our id", m.ID, "bob", "client-0001", nil},
		{"the broker's id", "Broker0000000001", "bob", "client-0001", nil},
		{"the sender's id", "client-0001", "bob", "client-0001", nil},
		{"the beginning of the broker's id", "Broker00", "", "client-0001", nil},
		{"a beginning that several have", "client-00", "", "", ErrAmbiguous},
		{"of which one session has one", "client-00", "carol", "client-0002", nil},
		{"a beginning that is too short", "client-", "", "", ErrNotFound},
		{"another session's message", "client-0001", "carol", "", ErrNotFound},
		{"a wildcard", "client-%", "", "", ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := s.Find(t.Context(), c.ref, c.session, "")
			if !errors.Is(err, c.err) || got.ClientMessageID != c.want {
				t.Errorf("%q, %v", got.ClientMessageID, err)
			}
		})
	}
	t.Run("two senders may have chosen one id", func(t *testing.T) {
		twin := message("client-0001", ToSession)
		twin.Sender = "somebody else"
		insert(t, s, twin, "bob")
		if all, err := s.Meant(t.Context(), "client-0001", "", ""); err != nil || len(all) != 2 || all[0].Sender != "somebody else" {
			t.Errorf("%+v, %v", all, err)
		}
		if _, err := s.Find(t.Context(), "client-0001", "", ""); !errors.Is(err, ErrAmbiguous) {
			t.Error(err)
		}
	})
}

func TestFindingIsDoneByIndex(t *testing.T) {
	s, _ := openTest(t)
	for _, query := range []string{findExact, findPrefix} {
		rows, err := s.db.Query(t.Context(), "EXPLAIN QUERY PLAN "+query, "client-0001", "", "", "client-0001~")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if detail == "SCAN m" {
				t.Errorf("%s\nreads the whole inbox", query)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
