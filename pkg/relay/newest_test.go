package relay

import (
	"testing"

	"github.com/culvert-net/culvert/pkg/route"
)

// Of many joins the newest are listed, these first, and the rest is counted: with the
// same numbers of all of them, however many are listed.
func TestNewest(t *testing.T) {
	relay := startRelay(t)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	const joins = 4
	for n := 1; n <= joins; n++ {
		// Each has moved another number of bytes, by which it is known.
		nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
		carries(t, nc, "1234567890"[:n])
	}
	eventually(t, "all bytes are counted", func() bool { return relay.Counts().Bytes() == 2*(1+2+3+4) }) // which those who read them do not wait for
	for _, tt := range []struct{ most, listed int }{{0, 0}, {1, 1}, {3, 3}, {joins, joins}, {10_000, joins}} {
		st := relay.Newest(tt.most)
		if len(st.Joins) != tt.listed || st.LeftOff != joins-tt.listed {
			t.Errorf("of %d at most: %d listed and %d left off", tt.most, len(st.Joins), st.LeftOff)
		}
		for i, j := range st.Joins {
			if want := int64(joins - i); j.ToTarget != want || j.ToCaller != want {
				t.Errorf("of %d at most: join %d has moved %d and %d bytes, want %d: the newest first", tt.most, i, j.ToTarget, j.ToCaller, want)
			}
		}
		if c := st.Counts; c.Joins != joins || c.Joined != joins || c.ToTarget != 1+2+3+4 || c.ToCaller != 1+2+3+4 {
			t.Errorf("of %d at most: %+v", tt.most, c)
		}
	}
	if st := relay.Status(); len(st.Joins) != joins || st.LeftOff != 0 || st.Joins[0].ToTarget != 1 {
		t.Errorf("all of them: %d joins, the first has moved %d bytes, want the oldest first", len(st.Joins), st.Joins[0].ToTarget)
	}
}
