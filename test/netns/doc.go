// Package netns gives a test three hosts and a network of its own: a client and a server, and between them a proxy, which is
// where the test itself runs. The kernel forgets all of it when the test has ended, however it has ended: nothing of it has a
// name.
package netns
