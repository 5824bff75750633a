package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
)

// buildRecipe makes the same bytes again from the same source.
const buildRecipe = "CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' ./cmd/jurat"

type versionInfo struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	SHA256   string            `json:"sha256,omitempty"` // of the running binary
	Recipe   string            `json:"recipe"`
	Modules  map[string]string `json:"modules"` // dependencies that are linked in
}

// version tells what this binary is and how to build it again.
func (a *app) version(_ context.Context, args []string) error {
	fs := a.flags("version [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return usageError("version takes no argument")
	}
	v := buildInfo()
	v.SHA256 = ownDigest()
	if *asJSON {
		return writeJSON(a.stdout, v)
	}
	fmt.Fprintf(a.stdout, "jurat %s %s %s\nsha256 %s\nbuild  %s\n", v.Version, v.Go, v.Platform, v.SHA256, v.Recipe)
	return nil
}

// buildInfo is what the binary knows of itself without reading its file.
func buildInfo() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Recipe: buildRecipe, Modules: map[string]string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			v.Version = info.Main.Version
		}
		for _, m := range info.Deps {
			v.Modules[m.Path] = m.Version
		}
	}
	return v
}

func ownDigest() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
