package control

import (
	"maps"
	"os"
	"time"
)

// watcher finds out when a directory has changed. It compares what files are and when they changed, which every file system knows;
// events of the kernel do not come from all, and not through links that are turned, as Kubernetes does with its volumes.
type watcher struct {
	dir    string
	read   map[string]stamp // of what was read last
	before map[string]stamp // of the look before
	fresh  bool             // something was so young when it was read that a later write may not show
	failed bool
}

// racy is how young a file may be that a write to it, right after it was read, might leave with the same stamp.
const racy = 50 * time.Millisecond

// look answers the files where they have changed and stay as they are from one look to the next: an editor, or a copy of many
// files, is not read in the middle.
func (w *watcher) look() (Files, bool, error) {
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		w.failed = true
		return nil, false, err
	}
	seen, err := survey(root)
	_ = root.Close()
	if err != nil {
		w.failed = true
		return nil, false, err
	}
	before := w.before
	w.before = seen
	if before != nil && !maps.Equal(seen, before) || before == nil && w.read == nil {
		return nil, false, nil
	}
	if maps.Equal(seen, w.read) && !w.fresh && !w.failed {
		return nil, false, nil
	}
	files, stamps, err := readDirectory(w.dir)
	if err != nil {
		w.failed = true
		return nil, false, err
	}
	w.read, w.before, w.fresh, w.failed = stamps, stamps, false, false
	for _, s := range stamps {
		if age := time.Since(s.Changed); age < racy {
			w.fresh = true
		}
	}
	return files, true, nil
}
