; A PVH kernel that prints what the loader told it: an ELF image with Xen's PHYS32_ENTRY note.
;   nasm -f bin -o pvh pvh.asm

        bits 32
BASE    equ 0x100000
        org BASE

elf:    db 0x7f, "ELF", 1, 1, 1         ; 32 bits, little-endian
        times 9 db 0
        dw 2, 3                         ; executable, i386
        dd 1, start, segments - BASE, 0, 0
        dw segments - elf, 32, 2, 0, 0, 0
segments:
        dd 1, 0, BASE, BASE, end - elf, bss_end - elf, 7, 4             ; LOAD
        dd 4, note - BASE, note, note, note_end - note, note_end - note, 4, 4   ; NOTE
note:   dd 4, 4, 18
        db "Xen", 0
        dd start
note_end:

%include "report.inc"

start:  mov esp, stack
        mov ebp, ebx
        number "magic", dword [ebp]
        number ".bss", dword [bss]
        call report_state
        string "command line:", dword [ebp + 24]

        mov ebx, [ebp + 40]             ; memory map
        mov edi, [ebp + 48]
        xor ecx, ecx
row:    cmp dword [ebx + 16], 1         ; RAM
        jne next_row
        add ecx, [ebx + 8]
next_row:
        add ebx, 24
        dec edi
        jnz row
        shr ecx, 20
        number "MiB of RAM", ecx

        mov edi, [ebp + 12]
        mov ebx, [ebp + 16]
        number "modules", edi
module: test edi, edi
        jz finish
        mov esi, [ebx]
        mov ecx, [ebx + 8]
        call print_bytes
        add ebx, 32
        dec edi
        jmp module

end:
        absolute $
        alignb 16
bss:    resd 4
        resb 4096
stack:
bss_end:
