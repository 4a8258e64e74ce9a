// SPDX-License-Identifier: MIT
pragma solidity ^0.8.0;

/// An append-only list of interest rates. Only the owner may save, and each id is saved once.
///
/// A rate is a fixed-point number with 18 decimals: 1.0 is 10^18. Ids are UUIDs of version 7, so they are ordered by
/// submission. A sender that does not know whether a transaction succeeded may send the same id again: the contract
/// refuses an id that is already saved.
contract InterestRates {
    /// A saved rate. It takes two storage slots; the id and the time share the first one.
    struct Record {
        uint128 id;
        uint64 savedAt;
        uint256 rate;
    }

    /// The caller is not the owner.
    error NotOwner();
    /// This id has been saved before.
    error AlreadySaved(uint128 id);

    event Saved(uint256 indexed index, uint128 indexed id, uint256 rate, uint64 savedAt);

    /// The maximum number of records in one page. It keeps a call below the gas limit of a node.
    uint256 public constant MAX_PAGE = 200;

    /// The account that deployed the contract. Only this account may save.
    address public immutable owner;

    Record[] private records;
    /// The index of each id in `records`, plus one; zero means that the id has not been saved.
    mapping(uint128 => uint256) private places;
    /// The highest id so far and the index of its record, in one slot.
    uint128 private highest;
    uint128 private highestIndex;

    constructor() {
        owner = msg.sender;
    }

    /// Saves a rate under an id that has not been saved before.
    function save(uint128 id, uint256 rate) external {
        if (msg.sender != owner) revert NotOwner();
        if (places[id] != 0) revert AlreadySaved(id);
        uint256 index = records.length;
        uint64 savedAt = uint64(block.timestamp);
        records.push(Record(id, savedAt, rate));
        places[id] = index + 1;
        if (index == 0 || id > highest) {
            highest = id;
            highestIndex = uint128(index);
        }
        emit Saved(index, id, rate, savedAt);
    }

    /// The number of saved rates.
    function count() external view returns (uint256) {
        return records.length;
    }

    /// The record at an index; the first one is at 0.
    function record(uint256 index) external view returns (Record memory) {
        return records[index];
    }

    /// The record of an id, if it has been saved.
    function find(uint128 id) external view returns (bool found, uint256 index, Record memory saved) {
        uint256 place = places[id];
        if (place == 0) return (false, 0, saved);
        return (true, place - 1, records[place - 1]);
    }

    /// The record with the highest id, if one exists: a submission that is saved late does not replace a newer one.
    function current() external view returns (bool found, uint256 index, Record memory saved) {
        if (records.length == 0) return (false, 0, saved);
        return (true, highestIndex, records[highestIndex]);
    }

    /// The records before an index, newest first, at most `limit` and at most `MAX_PAGE` of them. The first one has the
    /// index `first`; the indexes of the others decrease by one.
    function page(uint256 before, uint256 limit) external view returns (uint256 first, Record[] memory found) {
        uint256 end = before < records.length ? before : records.length;
        uint256 length = limit < MAX_PAGE ? limit : MAX_PAGE;
        if (length > end) length = end;
        found = new Record[](length);
        for (uint256 i = 0; i < length; i++) found[i] = records[end - 1 - i];
        first = length == 0 ? 0 : end - 1;
    }
}
