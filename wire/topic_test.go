package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestTopicFramesAreChecked(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	key, long := SealedKey{EncryptedKey: b64(80), Nonce: b64(24)}, strings.Repeat("x", 5000)
	many := make([]SealedKeyFor, MaxTopicKeys+1)
	for i := range many {
		many[i] = SealedKeyFor{"m", key}
	}
	for name, c := range map[string]struct {
		in interface{ Validate() error }
		ok bool
	}{
		"a topic":                          {TopicCreate{Name: "deploys"}, true},
		"a topic with a key":               {TopicCreate{Name: "deploys", Visibility: "dm", Key: &key}, true},
		"with a key that is too short":     {TopicCreate{Name: "deploys", Key: &SealedKey{b64(79), b64(24)}}, false},
		"with a nonce that is too long":    {TopicCreate{Name: "deploys", Key: &SealedKey{b64(80), b64(27)}}, false},
		"with a key that is no base64":     {TopicCreate{Name: "deploys", Key: &SealedKey{strings.Repeat("%", 108), b64(24)}}, false},
		"without a name":                   {TopicCreate{}, false},
		"with a sigil in its name":         {TopicCreate{Name: "#x"}, false},
		"with a name of two lines":         {TopicCreate{Name: "a\nb"}, false},
		"with a long description":          {TopicCreate{Name: "x", Description: long}, false},
		"a visibility of its own":          {TopicCreate{Name: "x", Visibility: "hidden"}, false},
		"joining":                          {TopicJoin{Topic: "x", Role: "observer"}, true},
		"joining nothing":                  {TopicJoin{}, false},
		"joining as king":                  {TopicJoin{Topic: "x", Role: "king"}, false},
		"leaving":                          {TopicLeave{Topic: "x"}, true},
		"leaving with a long id":           {TopicLeave{Topic: "x", MemberID: long}, false},
		"asking with a long name":          {TopicRequest{Topic: long}, false},
		"history with any limit":           {TopicHistory{Topic: "x", Limit: -7}, true},
		"history before a long id":         {TopicHistory{Topic: "x", BeforeID: long}, false},
		"sealing":                          {TopicSeal{Topic: "x", MemberID: "m", SealedKey: key}, true},
		"sealing for nobody":               {TopicSeal{Topic: "x", SealedKey: key}, false},
		"sealing nothing":                  {TopicSeal{Topic: "x", MemberID: "m"}, false},
		"a new key":                        {TopicRotate{Topic: "x", Generation: 1, Keys: many[:1]}, true},
		"a new key for nobody":             {TopicRotate{Topic: "x", Generation: 1}, false},
		"a new key for too many":           {TopicRotate{Topic: "x", Generation: 1, Keys: many}, false},
		"a new key without a number":       {TopicRotate{Topic: "x", Keys: many[:1]}, false},
		"a new key, not sealed":            {TopicRotate{Topic: "x", Generation: 1, Keys: []SealedKeyFor{{MemberID: "m"}}}, false},
		"a new key for one without a name": {TopicRotate{Topic: "x", Generation: 1, Keys: []SealedKeyFor{{SealedKey: key}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.in.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("the largest new key fits into a frame", func(t *testing.T) {
		keys := make([]SealedKeyFor, MaxTopicKeys)
		for i := range keys {
			keys[i] = SealedKeyFor{strings.Repeat("m", 32), key}
		}
		if _, err := Encode(TopicRotate{Type: TypeTopicRotate, Topic: strings.Repeat("t", 32), Generation: 1, Keys: keys}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a seal is flat in its frame", func(t *testing.T) {
		data, err := json.Marshal(TopicSeal{Type: TypeTopicSeal, Topic: "x", MemberID: "m", SealedKey: SealedKey{"k", "n"}})
		if err != nil || string(data) != `{"type":"topic_seal","topic":"x","memberId":"m","encryptedKey":"k","nonce":"n"}` {
			t.Errorf("%s, %v", data, err)
		}
	})
}
