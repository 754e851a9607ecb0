package segment

import "time"

// MaxInfo is the longest root of a replica that is read.
const MaxInfo = 4096

// ReplicaInfo is the root of a replica, the object at [InfoKey].
type ReplicaInfo struct {
	Database ID
	Created  time.Time
	Requires []string // features that a reader must know
}

// MarshalReplicaInfo returns info as it is stored.
func MarshalReplicaInfo(info ReplicaInfo) ([]byte, error) { return nil, errTodo }

// ParseReplicaInfo decodes what [MarshalReplicaInfo] returns. Keys it doesn't
// know are ignored; a feature or format that it doesn't know is [ErrVersion].
func ParseReplicaInfo(b []byte) (*ReplicaInfo, error) { return nil, errTodo }
