// Command genconfig keeps what is said of the configuration file in step with the types that it is decoded into:
//
//	genconfig comments OUT.go DIR...       a table of the comments of the types in DIR that have yaml tags
//	genconfig reference SCHEMA.json FILE   the tables in a page, from the schema that those comments went into
package main

import (
	"fmt"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: genconfig comments OUT.go DIR... | reference SCHEMA.json FILE")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(mode, first string, rest []string) error {
	switch mode {
	case "comments":
		out, err := comments(rest)
		if err != nil {
			return err
		}
		return os.WriteFile(first, out, 0o644)
	case "reference":
		schema, err := os.ReadFile(first)
		if err != nil {
			return err
		}
		page, err := os.ReadFile(rest[0])
		if err != nil {
			return err
		}
		out, err := reference(schema, page)
		if err != nil {
			return err
		}
		return os.WriteFile(rest[0], out, 0o644)
	}
	return fmt.Errorf("%q is not known", mode)
}
