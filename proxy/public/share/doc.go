// Package share lets replicas on several machines use the storage of one of them: accounts, keys and certificates, and the locks around
// them. A Server has the storage, a Client is in the place of one. Between them is HTTP/1.1 over attested connections, one request for each
// operation.
//
// Invariants:
//   - nothing is read from a peer, and nothing is written to it, that is not affirmed at level session, at the moment when it is read or
//     written: both ends hand out private keys;
//   - what a replica can make the holder keep is bounded: connections, handshakes, the size of keys and values, their number and total, and
//     locks;
//   - a lock is a lease. It ends soon after whoever has it says nothing any more, and is kept for as long as that is so only;
//   - no operation waits without an end, at either end;
//   - a holder that can't be reached is not one that has nothing: only it can say that something does not exist.
package share
