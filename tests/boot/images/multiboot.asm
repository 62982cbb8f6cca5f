; A multiboot kernel that prints what the loader told it. Multiboot Specification 0.6.96, chapter 3.
;   nasm -f bin -o multiboot multiboot.asm

        bits 32
        org 0x100000

MAGIC   equ 0x1badb002
FLAGS   equ 1 << 16 | 1 << 1 | 1 << 0   ; addresses below, memory information, modules on pages

        align 4
header: dd MAGIC, FLAGS, -(MAGIC + FLAGS)
        dd header, $$, end, bss_end, start

%include "report.inc"

start:  mov esp, stack
        mov ebp, ebx
        number "magic", eax
        number ".bss", dword [bss]
        call report_state
        number "lower memory", dword [ebp + 4]
        number "upper memory", dword [ebp + 8]
        string "command line:", dword [ebp + 16]

        mov ebx, [ebp + 48]             ; memory map: `size` bytes behind each size field
        mov edi, ebx
        add edi, [ebp + 44]
        xor ecx, ecx
row:    cmp dword [ebx + 20], 1         ; RAM
        jne next_row
        add ecx, [ebx + 12]
next_row:
        add ebx, [ebx]
        add ebx, 4
        cmp ebx, edi
        jb row
        shr ecx, 20
        number "MiB of RAM", ecx

        mov edi, [ebp + 20]
        mov ebx, [ebp + 24]
        number "modules", edi
module: test edi, edi
        jz finish
        mov ecx, [ebx]
        and ecx, 0xfff
        number "module at", ecx
        string "module:", dword [ebx + 8]
        mov esi, [ebx]
        mov ecx, [ebx + 4]
        sub ecx, esi
        call print_bytes
        add ebx, 16
        dec edi
        jmp module

end:
        absolute $
        alignb 16
bss:    resd 4
        resb 4096
stack:
bss_end:
