package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
)

func helpVerb() *verb {
	return &verb{
		name:  "help",
		args:  "[COMMAND]",
		brief: "explain outwash, or one of its commands",
		help: `Examples:
  outwash help
  outwash help restore
`,
		codes: []int{codeOK, codeUsage},
		flags: func(fs *flag.FlagSet) runner {
			return func(_ context.Context, u *ui, args []string) error {
				if len(args) == 0 {
					u.print(overview())
					return nil
				}
				if len(args) > 1 {
					return usagef("one command expected, and there is also %q", args[1])
				}
				v, err := findVerb(args[0])
				if err != nil {
					return err
				}
				u.print(verbHelp(v))
				return nil
			}
		},
	}
}

// overview is what a newcomer sees first.
func overview() string {
	var b strings.Builder
	b.WriteString(`Outwash replicates SQLite databases to S3 from inside the program that writes.

A Go program opens its database with ?vfs=replicated&replica=URL, and every
commit is in the bucket moments later. For programs in other languages
"outwash replicate" does it beside them. The other commands work on what is there.

Usage: outwash COMMAND [flags] [arguments]

Commands:
`)
	for _, v := range verbs() {
		if !v.hidden {
			fmt.Fprintf(&b, "  %-10s %s\n", v.name, v.brief)
		}
	}
	b.WriteString(`
See it work, in under a minute and without any account:
  outwash demo

Check a bucket before you use it, or find out what is wrong:
  outwash doctor s3://BUCKET/PATH

Replicate a database that any program writes:
  outwash replicate app.db s3://BUCKET/PATH

Look at a replica, then get the database back:
  outwash ls s3://BUCKET/PATH
  outwash restore -o app.db s3://BUCKET/PATH

Replica URLs:
  s3://BUCKET/PATH                      credentials from the environment, as AWS's own tools
  s3://BUCKET.s3.REGION.backblazeb2.com/PATH, s3://BUCKET.REGION.digitaloceanspaces.com/PATH ...
                                        other providers, by the host that they name
  s3://BUCKET/PATH?endpoint=https://HOST&region=REGION
                                        other servers; quote it, because of the &
  file:///DIRECTORY                     a directory on this machine

Or a configuration file says where the replicas are, and with which credentials;
Litestream's will do. Commands then take the database's path for the URL:
  outwash restore -config FILE /var/lib/app.db

Flags are written -x or --x, before or after the arguments.
"outwash help COMMAND" tells the rest.

Exit codes:
`)
	writeCodes(&b, nil)
	return b.String()
}

// verbHelp is the help of one verb.
func verbHelp(v *verb) string {
	fs := flag.NewFlagSet(v.name, flag.ContinueOnError)
	v.flags(fs)
	var b strings.Builder
	usage, hasFlags := "", false
	fs.VisitAll(func(*flag.Flag) { hasFlags = true })
	if hasFlags {
		usage = " [flags]"
	}
	if v.args != "" {
		usage += " " + v.args
	}
	fmt.Fprintf(&b, "outwash %s: %s\n\nUsage: outwash %s%s\n\n%s", v.name, v.brief, v.name, usage, v.help)
	if hasFlags {
		b.WriteString("\nFlags:\n")
		fs.VisitAll(func(f *flag.Flag) {
			arg, text := flag.UnquoteUsage(f)
			name := "-" + f.Name
			if arg != "" {
				name += " " + arg
			}
			if d := f.DefValue; d != "" && d != "false" && d != "0" {
				text += fmt.Sprintf(" (default %s)", d)
			}
			indent := "\n" + strings.Repeat(" ", 26)
			if len(name) > 23 {
				name += indent[:26]
			}
			fmt.Fprintf(&b, "  %-23s %s\n", name, strings.ReplaceAll(text, "\n", indent))
		})
	}
	b.WriteString("\nExit codes:\n")
	writeCodes(&b, v.codes)
	return b.String()
}

// writeCodes lists the exit codes in ascending order; nil: all.
func writeCodes(b *strings.Builder, only []int) {
	list := slices.Clone(exitCodes)
	slices.SortFunc(list, func(x, y struct {
		code    int
		meaning string
		errs    []error
	}) int {
		return x.code - y.code
	})
	for _, c := range list {
		if only == nil || slices.Contains(only, c.code) {
			fmt.Fprintf(b, "  %3d  %s\n", c.code, c.meaning)
		}
	}
}
