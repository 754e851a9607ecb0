package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/shell"
)

// conclude makes the verdict.
func (j *judge) conclude() {
	f, r := j.f, j.r
	var bad []string // what failed
	readable, writable := f.List != nil, f.Create != nil
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.State != Failed {
			continue
		}
		bad = append(bad, c.Text)
		writable = false
		if c.Check != checkCreate && c.Check != checkCondition && c.Check != checkMultipart && c.Check != checkWrite {
			readable = false
		}
	}
	denied := f.Create != nil && errors.Is(f.Create.Err, objstore.ErrDenied) || f.Plain != nil && errors.Is(f.Plain.Err, objstore.ErrDenied)
	name := shell.Quote(r.Replica)
	if f.Name != nil {
		name = shell.Quote(f.Name...)
	}
	switch {
	case f.Interrupted:
		r.Verdict, r.Text, r.Next = Unfit, "interrupted", "outwash doctor "+name
	case f.ReadOnly && readable:
		r.Verdict, r.Text, r.Next = Ready, "reads work: good for restore", "outwash ls "+name
		if !j.hasReplica() {
			r.Text, r.Next = "reads work: good for restore, once there is a replica", "outwash doctor "+name+" (where the database is written)"
		}
	case readable && writable:
		r.Verdict, r.Text = Ready, "good for replication and restore"
		switch {
		case j.hasReplica():
			r.Next = "outwash ls " + name
		case f.Name != nil:
			r.Next = "open the database with the store of the configuration file (package replicate/config), or have another program's replicated by outwash replicate with that file"
		default:
			r.Next = fmt.Sprintf("open the database with vfs.DSN(PATH, %q), or have another program's replicated: outwash replicate DB %s", r.Replica, name)
		}
	case readable && denied:
		r.Verdict, r.Text = ReadOnly, "reads work, writes are denied: good for restore, not for replication"
		r.Next = "outwash policy " + name + " prints what replication needs; outwash doctor -read-only expects no more than this"
	default:
		r.Verdict, r.Text, r.Next = Unfit, "not usable: "+strings.Join(bad[:min(1, len(bad))], ""), "do what is said above, then outwash doctor "+name
	}
	if j.unproven() && (r.Verdict == ReadOnly || f.ReadOnly && r.Verdict == Ready) {
		r.Text = "listings work; whether reads do shows once there is a replica"
		if r.Verdict == ReadOnly {
			r.Text = "writes are denied: not good for replication; " + r.Text
		}
	}
	if n := r.Warnings; r.Verdict == Ready && n == 1 {
		r.Text += ", with a warning"
	} else if r.Verdict == Ready && n > 1 {
		r.Text += fmt.Sprintf(", with %d warnings", n)
	}
}
