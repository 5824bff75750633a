// Package endorse supplies endorsements: from the vendors' services with a cache in memory and on disk, from files, and
// from a bundle that was made elsewhere.
//
// Nothing here is trusted and nothing here verifies: the verifier of a TEE checks every byte it is given. What this package
// promises is that it asks only the configured hosts, follows no redirect, reads no more than its bounds, asks the same
// thing only once at a time, stays within a stated budget of requests, and serves what is still valid while a vendor cannot
// be reached. A bare public key is the exception to "not trusted": whoever names one makes it an anchor, so none is ever
// taken from a service, a cache or a bundle.
package endorse
