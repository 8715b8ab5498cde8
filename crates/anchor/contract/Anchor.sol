// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// Keeps the newest head of each log of one publisher. A head is a number of leaves and their RFC 6962 root; a log
/// is known by the SHA-256 of its origin.
///
/// Whoever anchors says which head they go on from. So two histories of one log never both stand here, whoever
/// holds the publisher's key: the one that comes second does not go on from what stands, and is refused.
contract Anchor {
    struct Head {
        uint64 size;
        bytes32 root;
    }

    /// A log has grown. All that ever stood in a log's place are its events, each going on from the one before.
    event Anchored(bytes32 indexed origin, uint64 oldSize, uint64 newSize, bytes32 newRoot);

    /// Only the publisher may anchor.
    error NotPublisher(address sender);
    /// The log does not stand where the caller goes on from.
    error Fork(uint64 size, bytes32 root);
    /// A log only grows.
    error NotGrown(uint64 size);

    /// Who made this contract, and alone may anchor.
    address public immutable publisher;

    /// The newest head of each log; zeros where there is none.
    mapping(bytes32 origin => Head) public heads;

    constructor() {
        publisher = msg.sender;
    }

    /// Puts a log's new head in the place of the old one, which is zeros for a log that is not here yet.
    function anchor(bytes32 origin, uint64 oldSize, bytes32 oldRoot, uint64 newSize, bytes32 newRoot) external {
        if (msg.sender != publisher) revert NotPublisher(msg.sender);
        Head storage head = heads[origin];
        if (head.size != oldSize || head.root != oldRoot) revert Fork(head.size, head.root);
        if (newSize <= oldSize) revert NotGrown(oldSize);
        head.size = newSize;
        head.root = newRoot;
        emit Anchored(origin, oldSize, newSize, newRoot);
    }
}
