// Package bound counts the messages in a serialized message before anything is made of them. Two bytes on the wire can be a
// message of hundreds of bytes in memory: without a count, whoever writes a resource of a few megabytes decides over gigabytes.
package bound

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Shape is what is known of a message.
type Shape interface {
	// Message answers the shape of a field that is a message, or a map, whose entries are; nil for every other field.
	Message(field int32) Shape
}

// maxDepth is that of messages within messages.
const maxDepth = 100

// What can't be counted.
var (
	ErrMalformed = errors.New("not a message")
	ErrDeep      = fmt.Errorf("more than %d messages within one another", maxDepth)
)

// Messages answers how many messages raw is made of, itself among them: most+1 where it is more than most.
func Messages(s Shape, raw []byte, most int) (int, error) {
	c := counter{most: most}
	err := c.message(s, raw, 0)
	return min(c.n, most+1), err
}

type counter struct{ n, most int }

func (c *counter) message(s Shape, raw []byte, depth int) error {
	if depth > maxDepth {
		return ErrDeep
	}
	for c.n++; len(raw) > 0 && c.n <= c.most; {
		number, typ, n := protowire.ConsumeTag(raw)
		if n < 0 || typ == protowire.StartGroupType || typ == protowire.EndGroupType { // which proto3 does not have
			return ErrMalformed
		}
		raw = raw[n:]
		if n = protowire.ConsumeFieldValue(number, typ, raw); n < 0 {
			return ErrMalformed
		}
		if inner := s.Message(int32(number)); inner != nil && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(raw)
			if err := c.message(inner, v, depth+1); err != nil {
				return err
			}
		}
		raw = raw[n:]
	}
	return nil
}
