// Package endorse supplies endorsements: from AMD's Key Distribution Service with a cache on disk, and from files.
//
// Nothing here is trusted and nothing here verifies: the verifier of a TEE checks every byte it is given. What this package
// promises is that it asks only the configured host, follows no redirect, reads no more than its bounds, and asks the same
// thing only once at a time.
package endorse
